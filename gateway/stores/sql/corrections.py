"""Late truth: what becomes known of a request whose hold was ended by an estimate.

Nothing that is booked changes (L6). The estimate is taken back by a row of its own, every figure
negative, and the truth is booked beside it, so that all sums are those of the truth. Which of the
two was delivered first makes no difference.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, RowMapping, select, text

from billing.meters import Meters, Provenance
from billing.prices import RateCard
from billing.usage import UNKNOWN_ATTEMPT, VERSION, UsageEvent
from gateway.stores.sql import rate_cards
from gateway.stores.sql.bulk import among
from gateway.stores.sql.tables import usage_rows

Delivered = tuple[UsageEvent, bool]  # with whether its hold was found

_LOCK: Final = 0x6D68_0002  # any number, the same for every process that books
REVERSED: Final = ":reversed"  # after the id of what is taken back
REPRICING: Final = "repricing_"  # begins what follows the id of what was charged anew
_NEGATED: Final = ("charge_picos", "cost_picos", "counter_nanos")


def is_weak(event: UsageEvent) -> bool:
    """Whether anything else that is known of the request says more."""
    return event.attempt == UNKNOWN_ATTEMPT and event.hold == "estimated"


def may_correct(delivered: Iterable[Delivered]) -> bool:
    """Whether it is likely that one of them meets an estimate that it proves wrong."""
    return any(not found or is_weak(event) for event, found in delivered)


def one_at_a_time(connection: Connection, *, alone: bool) -> None:
    """Until the end of the transaction nobody books what may prove wrong what this one books.
    Estimates and corrections are booked `alone`, what came with its hold beside others of its kind:
    those are the most, and estimate nothing. SQLite has one writer anyway.
    """
    if connection.dialect.name == "postgresql":
        shared = "" if alone else "_shared"
        connection.execute(text(f"SELECT pg_advisory_xact_lock{shared}(:n)"), {"n": _LOCK})


def still_weak(connection: Connection, weak: Sequence[Delivered]) -> list[Delivered]:
    """Those of the weak estimates that nothing is known beside."""
    known = _known(connection, usage_rows.c.request_id, [event.request_id for event, _ in weak])
    requests = {row["request_id"] for row in known}
    return [each for each in weak if each[0].request_id not in requests]


def rows(
    connection: Connection, delivered: Sequence[Delivered], new_ids: set[str]
) -> list[Delivered]:
    """What must be booked besides, after `delivered` were, of which `new_ids` are new. Asked again,
    it answers the same rows: their ids are unique, so they are booked once.

    That a hold was found says nothing of estimates: one that a store lost and has again, by a
    failover or a rebuild, ends twice.
    """
    late = {
        event.event_id: event
        for event, _ in delivered
        if event.event_id not in new_ids and event.hold != "estimated"
    }
    requests = {event.request_id for event, _ in delivered}
    asked = [*late, *(f"{request_id}:{UNKNOWN_ATTEMPT}" for request_id in requests)]
    found = _known(connection, usage_rows.c.event_id, asked)
    estimates = [row for row in found if row["hold"] == "estimated"]
    if not estimates:
        return []
    estimates += _repriced(connection, estimates)
    cards = rate_cards.get(connection, {row[name] for row in estimates for name in _CARDS} - {None})
    taken_back = [(reversed_of(event_of(row, cards)), False) for row in estimates]
    truths = [late[row["event_id"]] for row in estimates if row["event_id"] in late]
    more = [*taken_back, *((_late(event), False) for event in truths)]
    return sorted(more, key=lambda each: each[0].event_id)


def _repriced(connection: Connection, estimates: Sequence[RowMapping]) -> list[RowMapping]:
    """The same estimates, charged anew: of each the last one stands, the others are taken back."""
    began = tuple(f"{row['event_id']}:{REPRICING}" for row in estimates)
    of_request = [row["request_id"] for row in estimates]
    known = _known(connection, usage_rows.c.request_id, of_request)
    return [
        row for row in known if row["hold"] == "estimated" and row["event_id"].startswith(began)
    ]


def _known(connection: Connection, column: Any, values: Sequence[str]) -> list[RowMapping]:
    if not values:
        return []
    return list(
        connection.execute(select(usage_rows).where(among(connection, column, values))).mappings()
    )


def _late(event: UsageEvent) -> UsageEvent:
    return msgspec.structs.replace(event, event_id=f"{event.event_id}:late")


def reversed_of(event: UsageEvent) -> UsageEvent:
    """What takes the event back. There is one of each at most: its id says so."""
    figures = {name: -getattr(event, name) for name in _NEGATED}
    usage = Meters(*(-tokens for tokens in msgspec.structs.astuple(event.usage)))
    return msgspec.structs.replace(
        event, event_id=f"{event.event_id}{REVERSED}", usage=usage, hold="reversed", **figures
    )


_CARDS: Final = ("charge_card", "cost_card")
_SAME: Final = tuple(
    name for name in UsageEvent.__struct_fields__ if name in usage_rows.c and name not in _CARDS
)


def event_of(row: RowMapping, cards: Mapping[str, RateCard]) -> UsageEvent:
    """The event that became this row."""
    same = {name: row[name] for name in _SAME}
    return UsageEvent(
        **same
        | {
            "v": VERSION,
            "team_path": tuple(row["team_path"].split("/")),
            "usage": Meters(
                row["input_tokens"],
                row["cache_read_tokens"],
                row["cache_write_5m_tokens"],
                row["cache_write_1h_tokens"],
                row["output_tokens"],
            ),
            "provenance": Provenance(row["provenance"]),
            "reported": _meters(row["reported"]),
            "counted": _meters(row["counted"]),
            "reasoning": row["reasoning_tokens"],
            "charge_card": cards[row["charge_card"]],
            "cost_card": None if row["cost_card"] is None else cards[row["cost_card"]],
            "tags": msgspec.json.decode(row["tags"], type=dict[str, str]),
        }
    )


def _meters(packed: str | None) -> Meters | None:
    return None if packed is None else msgspec.json.decode(packed, type=Meters)
