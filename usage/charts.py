"""Charts of the console as data: what Chart.js draws, and the table twin with the exact figures. Pure.

Amounts stay whole numbers (nano-dollars or counts) until the last step; the numbers for drawing are only for drawing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from conduit.core import wording

Unit = Literal["usd", "count", "ms"]
Amounts = Sequence[int | None]  # nano-dollars, counts or microseconds; None: there is nothing to average
SHOWN = 5  # more series than this become one


@dataclass(frozen=True, slots=True)
class Series:
    """`color` 0 is the dashed line of the former period."""

    name: str
    color: int
    total: str


@dataclass(frozen=True, slots=True)
class Row:
    label: str
    cells: list[str]
    total: str
    former: str = ""


@dataclass(frozen=True, slots=True)
class Plot:
    """A series before it is drawn, or all of them together; `total` is over the whole span."""

    name: str
    amounts: Amounts
    total: int | None
    color: int = 0


@dataclass(frozen=True, slots=True)
class Plots:
    """`whole` is everything, whose amounts are the table's totals; `former` is everything a period before."""

    series: Sequence[Plot]
    whole: Plot
    former: Plot | None = None


@dataclass(frozen=True, slots=True)
class Chart:
    """`drawing` goes through json_script under `id`; everything else is text for the legend and the table."""

    id: str
    label: str
    unit_title: str
    series: list[Series]
    rows: list[Row]
    totals: bool
    total: str
    drawing: dict[str, Any]
    former: Series | None = None


def largest(amounts: Mapping[str, Sequence[int]]) -> list[tuple[str, list[int]]]:
    """The five largest series, the rest as one "Other (n)", largest first."""
    ranked = sorted(amounts.items(), key=lambda item: (-sum(item[1]), item[0]))
    head = [(name, list(values)) for name, values in ranked[:SHOWN]]
    tail = [values for _, values in ranked[SHOWN:]]
    if tail:
        head.append((f"Other ({len(tail)})", [sum(column) for column in zip(*tail, strict=True)]))
    return head


def stacked(
    ident: str,
    label: str,
    axis: tuple[str, Sequence[str]],
    series: Sequence[tuple[str, Sequence[int]]],
    *,
    unit: Unit = "usd",
    colors: Sequence[int] = (1, 2, 3, 4, 5, 6),
) -> Chart:
    """Bars on top of each other. `axis` is what a bucket is called and the buckets' labels, oldest first."""
    title, labels = axis
    sums = [sum(column) for column in zip(*(values for _, values in series), strict=True)]
    digits = wording.digits_for(sums)

    def text(amount: int) -> str:
        return wording.usd(amount, digits) if unit == "usd" else wording.count(amount)

    rows = [
        Row(name, [text(values[index]) for _, values in series], text(sums[index])) for index, name in enumerate(labels)
    ]
    drawn = [
        {"name": name, "data": [_point(value, unit) for value in values], "color": f"c{color}"}
        for (name, values), color in zip(series, colors, strict=False)
    ]
    return Chart(
        id=ident,
        label=label,
        unit_title=title,
        series=[Series(name, color, text(sum(v))) for (name, v), color in zip(series, colors, strict=False)],
        rows=rows,
        totals=len(series) > 1,
        total=text(sum(sums)),
        drawing={"kind": "bar", "unit": unit, "labels": list(labels), "series": drawn, "dense": len(labels) > 40},
    )


def plotted(
    ident: str, label: str, axis: tuple[str, Sequence[str]], plots: Plots, *, unit: Unit, lines: bool = False
) -> Chart:
    """Bars on top of each other, or lines; the former period is a dashed line."""
    whole, former = plots.whole, plots.former
    title, labels = axis
    digits = wording.digits_for(amount or 0 for amount in whole.amounts)

    def text(amount: int | None) -> str:
        if amount is None:
            return wording.DASH
        if unit == "ms":
            return wording.microseconds(amount)
        return wording.usd(amount, digits) if unit == "usd" else wording.count(amount)

    drawn: list[dict[str, Any]] = [
        {"name": plot.name, "data": [_point(amount, unit) for amount in plot.amounts], "color": f"c{plot.color}"}
        for plot in plots.series
    ]
    if former:
        dashed = {"color": "ink-2", "line": True, "dash": [4, 3]}
        drawn.append({"name": former.name, "data": [_point(amount, unit) for amount in former.amounts], **dashed})
    return Chart(
        id=ident,
        label=label,
        unit_title=title,
        series=[Series(plot.name, plot.color, text(plot.total)) for plot in plots.series],
        rows=[
            Row(
                name,
                [text(plot.amounts[index]) for plot in plots.series],
                text(whole.amounts[index]),
                text(former.amounts[index]) if former else "",
            )
            for index, name in enumerate(labels)
        ],
        totals=True,
        total=text(whole.total),
        drawing={
            "kind": "line" if lines else "bar",
            "unit": unit,
            "labels": list(labels),
            "series": drawn,
            "dense": len(labels) > 40,
        },
        former=Series(former.name, 0, text(former.total)) if former else None,
    )


def _point(amount: int | None, unit: Unit) -> float | None:
    if amount is None:
        return None
    return amount / {"usd": wording.NANOS, "count": 1, "ms": 1000}[unit]
