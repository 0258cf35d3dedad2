"""How a family of models behind Converse is asked to reason, or not to (Family.thinking):

budget    thinking: {type: enabled, budget_tokens}                                       Claude up to 4.5
adaptive  the same for a budget; for a word thinking: {type: adaptive} and outputConfig.effort    later Claude
nova      reasoningConfig: {type, maxReasoningEffort}                                    Nova 2
effort    reasoning_effort: a word                                                       OpenAI's models
"""

from __future__ import annotations

import msgspec

from providers.adapters.anthropic_request import EFFORT_BUDGETS, SMALLEST_BUDGET
from providers.adapters.thinking import budget_below
from providers.adapters.types import JSONObject, ReasoningSettings

_WORDS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
_EFFORTS = {**_WORDS, "xhigh": "xhigh", "max": "max"}  # of outputConfig


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """`fields` for additionalModelRequestFields, `effort` for outputConfig, names of what could not be said."""

    fields: JSONObject = msgspec.field(default_factory=dict)
    effort: str = ""
    dropped: tuple[str, ...] = ()


def reasoning_fields(settings: ReasoningSettings, way: str, cap: int | None) -> Asked:
    """`cap`: output tokens, of which a budget for thinking is a part."""
    off = settings.off or settings.effort == "none"
    if way == "effort":
        return _by_word(settings, off=off)
    if way == "nova":
        return _as_nova(settings, cap, off=off)
    if way and off:
        return Asked(fields={"thinking": {"type": "disabled"}})
    if way:
        return _as_claude(settings, cap, by_budget=way == "budget")
    return Asked() if off else Asked(dropped=("reasoning",))


def _as_claude(settings: ReasoningSettings, cap: int | None, *, by_budget: bool) -> Asked:
    budget, effort = settings.budget_tokens, ""
    if by_budget and budget is None:
        budget = EFFORT_BUDGETS.get(settings.effort)
    elif not by_budget:
        effort = _EFFORTS.get(settings.effort, "")
    if budget is not None:
        fitting = budget_below(cap, max(budget, SMALLEST_BUDGET), least=SMALLEST_BUDGET)
        if fitting is None:
            return Asked(effort=effort, dropped=("reasoning",))
        return Asked(fields={"thinking": {"type": "enabled", "budget_tokens": fitting}}, effort=effort)
    if not (settings.adaptive or settings.effort):
        return Asked()
    if by_budget:
        return Asked(dropped=("reasoning",))
    thinking = {"type": "adaptive"}
    if settings.show is not None:
        thinking["display"] = "summarized" if settings.show else "omitted"
    return Asked(fields={"thinking": thinking}, effort=effort)


def _as_nova(settings: ReasoningSettings, cap: int | None, *, off: bool) -> Asked:
    """Nova takes no maxTokens beside the effort "high", and the cap is what the answer may cost: so the effort gives
    way. https://docs.aws.amazon.com/nova/latest/nova2-userguide/extended-thinking.html"""
    if off:
        return Asked(fields={"reasoningConfig": {"type": "disabled"}})
    effort, dropped = _WORDS.get(settings.effort, "medium"), _budget(settings)
    if effort == "high" and cap is not None:
        effort, dropped = "medium", ("reasoning.effort", *dropped)
    return Asked(fields={"reasoningConfig": {"type": "enabled", "maxReasoningEffort": effort}}, dropped=dropped)


def _by_word(settings: ReasoningSettings, *, off: bool) -> Asked:
    if off:
        return Asked(dropped=("reasoning.off",))  # these models always reason
    word = _WORDS.get(settings.effort)
    return Asked(fields={"reasoning_effort": word} if word else {}, dropped=_budget(settings))


def _budget(settings: ReasoningSettings) -> tuple[str, ...]:
    return () if settings.budget_tokens is None else ("reasoning.budget_tokens",)
