"""Moves every wrapped key from the KEKs it lies under to another one, while everything runs.

Only the wrapping changes: data keys, ciphertexts and versions stay. A row is written by compare-and-set on its KEK and
its blob, so that a row that somebody else rewrote or destroyed meanwhile is left to them; how far it is lies in the
rows alone, so that it may be killed at any moment and begun again, by several processes at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction
from django.db.models import Model

from conduit.core import kek_kinds, keyring, sealed_columns
from conduit.core.errors import ConduitError, Conflict
from conduit.core.keyring import KeyRing
from conduit.core.sealed_columns import Wrapped

BATCH = 100


@dataclass(frozen=True, slots=True)
class Progress:
    """Wrapped keys under `to`, and those that are not yet."""

    to: str
    done: int
    left: int

    @property
    def total(self) -> int:
        return self.done + self.left


@dataclass(frozen=True, slots=True)
class Unopened:
    """A row that does not open, and why."""

    table: str
    id: str
    reason: str


def progress(to: str) -> Progress:
    done = left = 0
    for model, _ in sealed_columns.registered():
        rows = sealed_columns.rows_with_a_key(model)
        under = rows.filter(kek_id=to).count()
        done, left = done + under, left + rows.count() - under
    return Progress(to, done, left)


def rewrap(
    to: str, *, until: float | None = None, tell: Callable[[Progress], None] | None = None
) -> tuple[Progress, list[Unopened]]:
    """Rewraps until nothing is left or `until` (monotonic seconds) has come.

    Rows that do not open stay as they are and are told. Raises KekUnavailable where a service does not answer,
    Conflict where `to` goes meanwhile, ConfigurationError where the key file does not load any more.
    """
    unopened: list[Unopened] = []
    for model, wrapped in sealed_columns.registered():
        last: Any = None
        while until is None or time.monotonic() < until:
            rows = _batch(model, wrapped, to, last)
            if not rows:
                break
            last = rows[-1].pk
            unopened += _rewrap_batch(model, wrapped, rows, to)
            if tell is not None:
                tell(progress(to))
    return progress(to), unopened


def open_everything() -> list[Unopened]:
    """Opens all that is stored, asking the services anew; what does not open."""
    kek_kinds.forget()
    failed: list[Unopened] = []
    for model, wrapped in sealed_columns.registered():
        rows = sealed_columns.rows_with_a_key(model).order_by("pk").prefetch_related(*wrapped.related)
        for row in rows.iterator(chunk_size=BATCH):
            try:
                wrapped.open(row)
            except ConduitError as error:
                failed.append(Unopened(model._meta.label, str(row.pk), str(error)))
    return failed


def _batch(model: type[Model], wrapped: Wrapped, to: str, last: Any) -> list[Any]:
    rows = sealed_columns.rows_with_a_key(model).exclude(kek_id=to).order_by("pk")
    if last is not None:
        rows = rows.filter(pk__gt=last)
    return list(rows.prefetch_related(*wrapped.related)[:BATCH])


def _rewrap_batch(model: type[Model], wrapped: Wrapped, rows: list[Any], to: str) -> list[Unopened]:
    ring, unopened = keyring.ring(), []
    ids, keks, old, new = [], [], [], []
    for row in rows:
        bound, blob = wrapped.context(row), bytes(getattr(row, wrapped.blob))
        try:
            key = ring.unwrap(row.kek_id, blob, bound)
        except (keyring.KekMissing, keyring.Tampered) as error:
            unopened.append(Unopened(model._meta.label, str(row.pk), str(error)))
            continue
        ids.append(row.pk)
        keks.append(row.kek_id)
        old.append(blob)
        new.append(ring.wrap(key, bound, to)[1])
    if ids:
        _write(model, wrapped.blob, (ring, to), (ids, keks, old, new))
    return unopened


def _write(model: type[Model], blob: str, under: tuple[KeyRing, str], columns: tuple[list[Any], ...]) -> None:
    """One statement for a batch: triggers fire once. All names are those of our own models.

    `under` is the ring that wrapped, and the key. Raises Conflict where that key has gone meanwhile.
    """
    ring, to = under
    meta, quote = model._meta, connection.ops.quote_name
    table, pk = quote(meta.db_table), quote(str(meta.pk.column))
    column, kind = quote(blob), meta.pk.rel_db_type(connection)
    statement = (
        f"UPDATE {table} AS t SET kek_id = %s, {column} = v.fresh "  # noqa: S608 (identifiers, quoted)
        f"FROM unnest(%s::{kind}[], %s::text[], %s::bytea[], %s::bytea[]) AS v(id, kek, old, fresh) "
        f"WHERE t.{pk} = v.id AND t.kek_id = v.kek AND t.{column} = v.old"
    )
    with transaction.atomic(), connection.cursor() as cursor:
        # A change of the configuration raises the epoch; whoever takes that row first waits for nobody in a circle.
        cursor.execute("SELECT 1 FROM core_epoch WHERE id = 1 FOR UPDATE")
        # A retirement holds it too: a key that is in the file now is there until these rows are written and need it.
        if keyring.certain().checks().get(to) != ring.checks()[to]:
            raise Conflict(f"{to} was retired or replaced while rows were moved under it. They stay where they are.")
        cursor.execute(statement, [to, *columns])
