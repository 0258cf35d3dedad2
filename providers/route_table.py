"""The routes by the names callers use: exact ones, and those whose name is a pattern (patterns.py)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import msgspec

from providers import patterns
from providers.adapters.registry import KINDS
from providers.catalogue import Matcher

if TYPE_CHECKING:
    from providers.routing import RouteEntry, TargetEntry

RESOLVED = 4096  # names kept that matched a pattern
LISTED = 500  # names that one pattern shows at most


class RouteTable:
    """`aimed` makes of a target the same one for another model. Not for several threads at once.

    `disabled`: names and patterns that lead nowhere. No other pattern takes the place of one that is the longest match.
    """

    def __init__(
        self,
        routes: Iterable[RouteEntry],
        found: Matcher,
        aimed: Callable[[TargetEntry, str, Matcher], TargetEntry],
        disabled: frozenset[str] = frozenset(),
    ) -> None:
        every = list(routes)
        self._exact: Mapping[str, RouteEntry] = {one.name: one for one in every if not patterns.is_pattern(one.name)}
        self._patterns = sorted((one for one in every if patterns.is_pattern(one.name)), key=lambda one: -len(one.name))
        self._found, self._aimed, self._disabled = found, aimed, disabled
        self._shut = sorted((name for name in disabled if patterns.is_pattern(name)), key=lambda name: -len(name))
        self._resolved: OrderedDict[str, RouteEntry] = OrderedDict()
        self._listed: list[tuple[str, RouteEntry]] | None = None

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __getitem__(self, name: str) -> RouteEntry:
        """Raises KeyError."""
        route = self.get(name)
        if route is None:
            raise KeyError(name)
        return route

    def get(self, name: str) -> RouteEntry | None:
        """The route that serves this name. One of a pattern keeps the pattern as its name; its targets are resolved."""
        route = self._exact.get(name)
        if route is not None or not self._patterns:
            return route
        route = self._resolved.get(name)
        if route is not None:
            self._resolved.move_to_end(name)
            return route
        if name in self._disabled or not patterns.is_name(name):
            return None
        return self._match(name)

    def _match(self, name: str) -> RouteEntry | None:
        route = self._longest(name)
        if route is None:
            return None
        targets = tuple(
            self._aimed(target, patterns.upstream_name(route.name, target.model, name), self._found)
            for target in route.targets
        )
        resolved = self._resolved[name] = msgspec.structs.replace(route, targets=targets)
        if len(self._resolved) > RESOLVED:
            self._resolved.popitem(last=False)
        return resolved

    def _longest(self, name: str) -> RouteEntry | None:
        """The pattern that takes this name; None where a longer one is disabled."""
        route = next((one for one in self._patterns if patterns.matches(one.name, name)), None)
        shut = next((one for one in self._shut if patterns.matches(one, name)), "")
        return route if route is not None and len(route.name) > len(shut) else None

    def listed(self) -> list[tuple[str, RouteEntry]]:
        """Every name with its route, sorted: of a pattern those that the catalogue knows of its targets' vendors and
        their kinds serve."""
        if self._listed is None:
            names = dict(self._exact)
            for route in self._patterns:
                for name in self._names(route):
                    if name not in names and name not in self._disabled:
                        names[name] = self.get(name) or route
            self._listed = sorted(names.items())
        return self._listed

    def _names(self, route: RouteEntry) -> list[str]:
        """Those that this pattern takes and no longer one."""
        found: dict[str, None] = {}
        for target in route.targets:
            for model in self._models(target):
                name = patterns.callers_name(route.name, target.model, model)
                if name and self._longest(name) is route:
                    found[name] = None
                if len(found) == LISTED:
                    return list(found)
        return list(found)

    def _models(self, target: TargetEntry) -> Iterator[str]:
        served = KINDS[target.provider.kind].models
        for row in self._found.rows(target.provider.vendor):
            if not row.deprecated and (not served or any(fnmatchcase(row.name, pattern) for pattern in served)):
                yield row.name
