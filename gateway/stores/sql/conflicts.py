"""Events that come under an id that is booked and say something else: somebody is wrong, and it is
not for the order of delivery to say who. Estimates are no such case: the truth takes them back.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from sqlalchemy import Connection, select

from billing.usage import UsageEvent
from gateway.stores.sql.bulk import among
from gateway.stores.sql.tables import usage_rows

_WHOSE: Final = ("tenant_id", "key_id", "backend_id", "model", "winner")
_MONEY: Final = ("charge_picos", "cost_picos")
_TOKENS: Final = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output")
_ESTIMATED: Final = "estimated"


def between(one: UsageEvent, other: UsageEvent) -> str | None:
    """What is wrong with the second of two events of one id; None: they say the same."""
    if _ESTIMATED in {one.hold, other.hold} or _said(one) == _said(other):
        return None
    return _words(other.event_id)


def booked(connection: Connection, events: Sequence[UsageEvent]) -> str | None:
    """What is wrong with the first of the events, which are booked under their ids already, that
    says something else than its row.
    """
    firm = {event.event_id: event for event in events if event.hold != _ESTIMATED}
    for event_id, said in _rows(connection, list(firm)):
        if said != _said(firm[event_id]):
            return _words(event_id)
    return None


def _rows(
    connection: Connection, event_ids: Sequence[str]
) -> Iterable[tuple[str, tuple[object, ...]]]:
    if not event_ids:
        return
    of = usage_rows.c
    tokens = [of[f"{name}_tokens"] for name in _TOKENS]
    columns = [*(of[name] for name in (*_WHOSE, *_MONEY)), *tokens]
    query = select(of.event_id, *columns).where(
        among(connection, of.event_id, event_ids), of.hold != _ESTIMATED
    )
    for event_id, *said in connection.execute(query.order_by(of.event_id)):
        yield event_id, tuple(said)


def _said(event: UsageEvent) -> tuple[object, ...]:
    whose = (getattr(event, name) for name in (*_WHOSE, *_MONEY))
    return (*whose, *(getattr(event.usage, name) for name in _TOKENS))


def _words(event_id: str) -> str:
    return f"{event_id} is booked, and says otherwise there: one of the two is not what happened"
