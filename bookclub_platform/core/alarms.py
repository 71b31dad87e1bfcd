"""Alarm -> table `bookclub.alarms` -> the receiver, with retries: an outbox that loses nothing.

    put(connection, alarms)                                 # once per id, however often it is called
    deliver(engine, send, datetime.now(UTC))                # in order; stops at the first failure

An alarm stays until it is delivered, and then for KEPT, so that the same failure is not reported twice. It may be
delivered twice if this process dies between the response and the record of it: the receiver can deduplicate by `id`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, insert

from bookclub_platform.core import tables

KEPT = timedelta(days=90)
MOST_AT_ONCE = 20  # a sensor's tick has one minute
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=30), timedelta(hours=1)
_LONGEST_TEXT = 1000

_moment = sa.DateTime(timezone=True)

outbox = sa.Table(
    "alarms",
    tables.metadata,
    sa.Column("number", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("message", JSONB, nullable=False),
    sa.Column("raised_at", _moment, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("next_attempt_at", _moment, nullable=False),
    sa.Column("last_error", sa.Text),
    sa.Column("delivered_at", _moment),
    sa.Index("ix_alarms_pending", "number", postgresql_where=sa.text("delivered_at IS NULL")),
)


@dataclass(frozen=True, slots=True)
class Alarm:
    """One failure, described for people.

    Attributes:
        id: the same for the same failure.
        kind: a run that failed, or a check that did not pass.
        severity: in Dagster's terms; a warning does not block anything.
        subject: the asset, the check or the job.
        partition: the category, a range of them ("art .. travel"), or None for the whole.
        cause: what happened; what_to_do: how to fix it.
        url: its page in Dagster.
        raised_at: when it failed, UTC.
    """

    id: str
    kind: Literal["run", "check"]
    severity: Literal["ERROR", "WARN"]
    subject: str
    partition: str | None
    owners: tuple[str, ...]
    cause: str
    what_to_do: str
    url: str
    raised_at: datetime

    def message(self) -> dict[str, Any]:
        """The payload for a webhook: the fields, and `text` for Slack and Mattermost to show."""
        return {"text": self._text()} | asdict(self) | {"raised_at": self.raised_at.isoformat()}

    def _text(self) -> str:
        place = f"{self.subject} [{self.partition}]" if self.partition else self.subject
        what = "Run failed" if self.kind == "run" else f"Check failed ({self.severity})"
        lines = [f"{what}: {place}", self.cause, f"What to do: {self.what_to_do}", f"Owner: {', '.join(self.owners)}"]
        return "\n".join([*map(_escaped, lines), self.url])


def _escaped(text: str) -> str:
    """Escape Slack's markup: scraped text could contain some, such as a mention of the whole channel."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _storable(text: str) -> str:
    """Without what Postgres cannot store: an error may quote whatever a shop sent."""
    return re.sub("[\x00\ud800-\udfff]", "\ufffd", text)


def redacted(text: str, secrets: Sequence[str] = ()) -> str:
    """`text` without passwords, keys and the given `secrets`, shortened to fit a message."""
    text = _storable(text)
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    text = text[: 10 * _LONGEST_TEXT]  # an error may quote a page, and on an endless word these patterns take hours
    text = re.sub(r"([a-zA-Z][\w+.-]*://[^\s/@:]*:)[^\s/]+@", r"\1***@", text)
    text = re.sub(r"(?i)\b(\w*(?:password|passwd|secret|token|api_?key)\w*[\"']?\s*[=:]\s*)[^\s,;&]+", r"\1***", text)
    text = re.sub(r"(?i)\b(authorization:?\s+\w+|bearer)\s+[^\s,;]+", r"\1 ***", text)
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


def put(connection: sa.Connection, alarms: Sequence[Alarm], at: datetime) -> list[Alarm]:
    """Insert the alarms that are not in the table yet -> these alarms. Call it inside a transaction."""
    new = []
    for alarm in alarms:
        message = {key: _storable(value) if isinstance(value, str) else value for key, value in alarm.message().items()}
        row = {"id": alarm.id, "message": message, "raised_at": alarm.raised_at, "next_attempt_at": at}
        statement = insert(outbox).values(row).on_conflict_do_nothing(index_elements=["id"])
        if connection.scalar(statement.returning(outbox.c.id)) is not None:
            new.append(alarm)
    return new


@dataclass(frozen=True, slots=True)
class Delivery:
    """The result of a round: how many were `delivered`, how many are `pending`, and the `error` that ended it."""

    delivered: int
    pending: int
    error: str | None = None


def deliver(engine: sa.Engine, send: Callable[[dict[str, Any]], None], now: datetime) -> Delivery:
    """Pass pending alarms to `send`, the oldest first, until it raises OSError; then back off, longer each time. Each
    delivery is recorded in its own transaction."""
    delivered, error = 0, None
    while delivered < MOST_AT_ONCE and error is None:
        with engine.begin() as connection:
            head = connection.execute(_head()).one_or_none()
            # No pause is longer: what waits for a later time was queued while the clock was ahead.
            if head is None or now < head.next_attempt_at <= now + _LONGEST_PAUSE:
                break
            row = sa.update(outbox).where(outbox.c.number == head.number)
            try:
                send(head.message)
            except OSError as failure:
                error = str(failure)
                pause = min(_FIRST_PAUSE * 2 ** min(head.attempts, 10), _LONGEST_PAUSE)
                retry = {"attempts": head.attempts + 1, "next_attempt_at": now + pause, "last_error": redacted(error)}
                connection.execute(row.values(retry))
            else:
                connection.execute(row.values(delivered_at=now, attempts=head.attempts + 1, last_error=None))
                delivered += 1
    with engine.begin() as connection:
        connection.execute(sa.delete(outbox).where(outbox.c.delivered_at < now - KEPT))
        pending = connection.execute(select_pending()).scalar_one()
    return Delivery(delivered, pending, error)


def _head() -> sa.Select[Any]:
    """Select and lock the oldest pending alarm: concurrent senders take turns, and the order is kept."""
    waits = sa.select(outbox).where(outbox.c.delivered_at.is_(None))
    return waits.order_by(outbox.c.number).limit(1).with_for_update()


def select_pending() -> sa.Select[int]:
    """The number of pending alarms."""
    return sa.select(sa.func.count()).select_from(outbox).where(outbox.c.delivered_at.is_(None))
