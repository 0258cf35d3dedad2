"""Template tags of the console: `{% load console %}`. Wording comes from conduit.core.wording."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django import template
from django.templatetags.static import static
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from conduit.core import clock, wording

register = template.Library()

STATUS_ICONS = {
    "ok": "circle-check",
    "warn": "alert-triangle",
    "bad": "circle-x",
    "off": "circle-minus",
    "note": "clock",
}

register.filter("usd", wording.usd)
register.filter("usd_exact", wording.usd_exact)
register.filter("rate", wording.rate)
register.filter("count", wording.count)
register.filter("compact", wording.compact)
register.filter("us", wording.microseconds)
register.filter("plural", wording.plural)
register.filter("span", wording.span)


@register.simple_tag
def icon(name: str, size: str = "") -> SafeString:
    """An icon of the sprite; `size` is "", "s" or "l". Always beside a word, so hidden from readers."""
    return format_html(
        '<svg class="i{}" aria-hidden="true"><use href="{}#{}"></use></svg>',
        f" i-{size}" if size else "",
        static("vendor/sprite.svg"),
        name,
    )


@register.simple_tag
def status(kind: str, word: str, icon_name: str = "", pill: bool = False) -> SafeString:
    """Icon and word; the word never leaves. `kind`: ok, warn, bad, off, note."""
    return format_html(
        '<span class="st st-{}{}">{}{}</span>',
        kind,
        " pill" if pill else "",
        icon(icon_name or STATUS_ICONS[kind]),
        word,
    )


def _time(at: datetime, text: str) -> SafeString:
    iso = clock.rfc3339(at)
    return format_html('<time datetime="{}" title="{}">{}</time>', iso, iso, text)


@register.simple_tag
def when(at: datetime | None) -> SafeString | str:
    """Relative under 24 hours, then the date; a dash for never."""
    return wording.DASH if at is None else _time(at, wording.relative(at, clock.now()))


@register.simple_tag
def stamp(at: datetime) -> SafeString:
    return _time(at, wording.stamp(at))


@register.simple_tag
def stamp_minute(at: datetime) -> SafeString:
    """`1 Dec 2026 00:00 UTC`."""
    return _time(at, wording.minute(at))


@register.simple_tag
def clock_time(at: datetime) -> SafeString:
    return _time(at, wording.clock(at))


@register.simple_tag
def until(at: datetime | None) -> str:
    """How long from now, as a span."""
    return wording.DASH if at is None else wording.span(at - clock.now())


@register.simple_tag
def percent(part: int, whole: int, digits: int = 0) -> str:
    return wording.percent(part, whole, digits)


def _level(part: int, whole: int) -> str:
    if part * 100 >= whole * 98:
        return "bad"
    return "warn" if part * 100 >= whole * 80 else ""


@register.simple_tag
def meter(settled: int, held: int, limit: int, thin: bool = False) -> SafeString:
    """Settled solid, held hatched, free empty; the figures in words for readers. Nano-dollars."""
    free = max(limit - settled - held, 0)
    words = (
        f"{wording.usd(settled)} settled, {wording.usd(held)} held, {wording.usd(free)} free of {wording.usd(limit)}"
    )
    at = wording.share(settled, limit) if limit else 100.0
    held_wide = max(min(wording.share(held, limit), 100 - at), 1.5 if held and at < 98.5 else 0)
    return format_html(
        '<svg class="meter{}" role="img" aria-label="{}"><rect class="bg" width="100%" height="100%"></rect>'
        '<rect class="set {}" width="{}%" height="100%"></rect>{}</svg>',
        " t" if thin else "",
        words,
        _level(settled + held, limit),
        at,
        format_html('<rect class="held" x="{}%" width="{}%" height="100%"></rect>', at, held_wide) if held else "",
    )


@register.simple_tag
def rate_meter(used: int, limit: int) -> SafeString:
    """A counter against its limit; the figures in words for readers."""
    return format_html(
        '<svg class="meter t" role="img" aria-label="{} of {}"><rect class="bg" width="100%" height="100%"></rect>'
        '<rect class="set {}" width="{}%" height="100%"></rect></svg>',
        wording.count(used),
        wording.count(limit),
        _level(used, limit),
        wording.share(used, limit),
    )


@register.simple_tag
def meter_level(part: int, whole: int) -> str:
    """Class of the words beside a meter: empty, warn or bad."""
    return _level(part, whole)


@register.simple_tag
def share_bar(part: int, whole: int, color: int = 1) -> SafeString:
    """Decoration beside a figure: its share of the largest row, in the color of its series."""
    return format_html(
        '<svg class="share" aria-hidden="true"><rect class="fnone" width="100%" height="100%" opacity=".5"></rect>'
        '<rect class="f{}" width="{}%" height="100%"></rect></svg>',
        color,
        wording.share(part, whole),
    )


@register.simple_tag
def strip(minutes: list[dict[str, Any]], label: str) -> SafeString:
    """Sixty minutes as bars, worse is taller. Each: {"requests", "errors"} (both whole numbers)."""
    bars = []
    for index, minute in enumerate(minutes):
        ratio = minute["errors"] / minute["requests"] if minute["requests"] else 0
        css, height = ("fnone", 3) if not minute["requests"] else ("fok", 8)
        if ratio > 0:
            css, height = ("fbad", 20) if ratio >= 0.2 else ("fwarn", 14)
        bars.append((css, f"{index * 100 / len(minutes):.2f}", 20 - height, height))
    rects = format_html_join("", '<rect class="{}" x="{}%" y="{}" width="1.13%" height="{}"></rect>', bars)
    return format_html('<svg class="strip" role="img" aria-label="{}">{}</svg>', label, rects)


@register.simple_tag
def waterfall(lead: float, wait: float, run: float, css: str, label: str) -> SafeString:
    """One bar of a waterfall. All in percent of the whole: where it starts, waiting (grey), running."""
    return format_html(
        '<svg class="wf" role="img" aria-label="{}"><line x1="0" x2="100%" y1="7" y2="7"></line>'
        '<rect class="wait" x="{}%" y="4" width="{}%" height="6"></rect>'
        '<rect class="{}" x="{}%" y="1" width="{}%" height="12" rx="2"></rect></svg>',
        label,
        f"{lead:.2f}",
        f"{wait:.2f}",
        css,
        f"{lead + wait:.2f}",
        f"{max(run, 0.35):.2f}",
    )


@register.simple_tag
def swatch(color: int | str) -> SafeString:
    """The legend's square: 1 to 6 for a series, or `fink`, `fnone`; `dashed` is the line of a former period."""
    if color == "dashed":
        return mark_safe(
            '<svg class="sw" aria-hidden="true"><line x1="0" x2="10" y1="5" y2="5" stroke="currentColor"'
            ' stroke-width="2" stroke-dasharray="3 2"></line></svg>'
        )
    css = f"f{color}" if isinstance(color, int) else color
    return format_html('<svg class="sw" aria-hidden="true"><rect class="{}"></rect></svg>', css)


@register.simple_tag
def copy_code(ident: str, text: str, label: str, fold: bool = False) -> SafeString:
    """A block of code with its copy button. `label` says what is copied."""
    return format_html(
        '<div class="code"><pre id="{}" tabindex="0"{}>{}</pre>'
        '<button class="btn btn-sm btn-icon btn-bare" type="button" data-copy="{}" aria-label="Copy {}">'
        "{}</button></div>",
        ident,
        mark_safe(' class="fold"') if fold else "",
        text,
        ident,
        label,
        icon("copy", "s"),
    )


@register.filter
def get(mapping: dict[Any, Any], key: Any) -> Any:
    """A value by a key that is itself a variable; empty text when absent."""
    return mapping.get(key, "")


@register.filter
def short_id(ident: str | UUID) -> str:
    """An id that is too long for a table: its first 14 and last four characters."""
    text = str(ident)
    return text if len(text) <= 22 else f"{text[:14]}…{text[-4:]}"
