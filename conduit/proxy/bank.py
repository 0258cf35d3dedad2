"""The data plane's conversation about leases: one connection of its own, one statement a question (keys/leases.py)."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
import structlog

from conduit.proxy.snapshot import ANSWER_SECONDS, connection_parameters
from keys.leases import CLOSED, EXCHANGE, OPEN, Account, BankAway, Demand, arguments, open_arguments

log = structlog.get_logger("conduit.bank")


class PostgresBank:
    """`keys.leases.Bank` for one worker. `questions` counts the round trips."""

    def __init__(self, worker: UUID, node: str) -> None:
        self._worker, self._node = worker, node
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._number = 0
        self.questions = self._told = 0

    def take_questions(self) -> int:
        """How many there were since this was last called."""
        fresh, self._told = self.questions - self._told, self.questions
        return fresh

    async def open(self, periods: Sequence[tuple[UUID, datetime, datetime | None]]) -> dict[tuple[UUID, datetime], int]:
        found: dict[tuple[UUID, datetime], int] = {}
        for _ in range(2):  # a row that another worker committed meanwhile is neither made nor seen: look again
            rows = await self._rows(OPEN, open_arguments(periods))
            found |= {(budget, start): row for row, budget, start in rows}
            if len(found) == len(periods):
                break
        return found

    async def exchange(self, demands: Sequence[Demand]) -> list[Account]:
        self._number += 1
        rows = await self._rows(EXCHANGE, arguments(self._worker, self._node, os.getpid(), self._number, demands))
        return [Account(*row) for row in rows]

    async def _rows(self, statement: str, parameters: dict[str, Any]) -> list[Any]:
        self.questions += 1
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                if self._connection is None:
                    self._connection = await psycopg.AsyncConnection.connect(
                        **connection_parameters(), autocommit=True, connect_timeout=3
                    )
                cursor = await self._connection.execute(statement, parameters)
                return await cursor.fetchall()
        except BaseException as error:  # cancelled in the middle, the connection is of no use any more
            await self.close()
            if isinstance(error, psycopg.Error) and error.sqlstate == CLOSED:
                log.error("leases_closed", worker=str(self._worker))
                os.kill(os.getpid(), signal.SIGTERM)  # with a new process, and a new identity, it may borrow again
            if isinstance(error, psycopg.Error | OSError | TimeoutError):
                raise BankAway(str(error).strip() or type(error).__name__) from error
            raise

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
