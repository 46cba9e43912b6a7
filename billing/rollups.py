"""Usage summed into quarters of an hour: every zone's midnight is the edge of one.

A sum is what its deltas add up to, in any order and however they were put together before: deltas
are only ever added, so that nobody who books waits for whoever sums.
"""

from collections.abc import Iterable, Iterator
from operator import add, itemgetter
from typing import Any, Final

import msgspec

from billing.usage import UsageEvent

BUCKET_US: Final = 15 * 60 * 1_000_000


class RollupKey(msgspec.Struct, frozen=True, order=True):
    """What one row of the rollups stands for; ordered as the table's primary key."""

    tenant_id: str
    bucket_us: int  # start of the bucket of the admission
    team_id: str  # the key's own team
    key_id: str
    model: str
    backend_id: str
    region: str
    provenance: str
    charge_card: str
    cost_card: str  # "" where no cost price is known
    winner: bool


class Delta(RollupKey, frozen=True):
    """What to add to one row of the rollups. Fields are named as the table's columns."""

    currency: str
    requests: int  # attempts that won
    attempts: int
    input_tokens: int
    cache_read_tokens: int
    cache_write_5m_tokens: int
    cache_write_1h_tokens: int
    output_tokens: int
    charge_picos: int
    cost_picos: int


_JSON: Final = msgspec.json.Encoder()
KEY_FIELDS: Final = RollupKey.__struct_fields__
SUM_FIELDS: Final = Delta.__struct_fields__[len(KEY_FIELDS) + 1 :]


def bucket_us(at_us: int) -> int:
    """The start of the quarter of an hour that `at_us` is in; microseconds UTC."""
    return at_us - at_us % BUCKET_US


def key_of(event: UsageEvent) -> RollupKey:
    return RollupKey(
        tenant_id=event.tenant_id,
        bucket_us=bucket_us(event.admitted_at_us),
        team_id=event.team_path[-1],
        key_id=event.key_id,
        model=event.model,
        backend_id=event.backend_id,
        region=event.region,
        provenance=event.provenance.value,
        charge_card=event.charge_card.id,
        cost_card="" if event.cost_card is None else event.cost_card.id,
        winner=event.winner,
    )


def fold(events: Iterable[UsageEvent]) -> tuple[Delta, ...]:
    """One delta a row, in key order: whatever the order and batching of the events, the same rows
    come to the same sums, and two writers take the rows in the same order. The caller sees to it
    that an event is folded once.
    """
    return _added((key_of(event), event.currency, _figures(event)) for event in events)


def merge(deltas: Iterable[Delta]) -> tuple[Delta, ...]:
    """One delta a row, in key order, of however many: `merge` of several `fold`s is the `fold` of
    all their events.
    """
    split = len(KEY_FIELDS)
    fields = (msgspec.structs.astuple(delta) for delta in deltas)
    return _added((RollupKey(*each[:split]), each[split], each[split + 1 :]) for each in fields)


def canonical(merged: Iterable[Delta]) -> Iterator[bytes]:
    """A line for each row that says anything, from deltas that are merged: the same usage is the
    same bytes, wherever it is kept. A row of nothing but zeros, as a booking and its reversal
    leave, says as little as none.
    """
    for delta in merged:
        fields = msgspec.structs.astuple(delta)
        if any(fields[len(KEY_FIELDS) + 1 :]):
            yield _JSON.encode(fields) + b"\n"


def _added(rows: Iterable[tuple[RollupKey, str, tuple[int, ...]]]) -> tuple[Delta, ...]:
    sums: dict[RollupKey, tuple[str, tuple[int, ...]]] = {}
    for key, currency, figures in rows:
        known = sums.get(key)
        if known is None:
            sums[key] = currency, figures
        else:
            sums[key] = known[0], tuple(map(add, known[1], figures))
    return tuple(
        _delta((*msgspec.structs.astuple(key), currency, *figures))
        for key, (currency, figures) in sorted(sums.items(), key=itemgetter(0))
    )


def _delta(fields: tuple[Any, ...]) -> Delta:
    return Delta(*fields)


def _figures(event: UsageEvent) -> tuple[int, ...]:
    """In the order of SUM_FIELDS."""
    usage = event.usage
    sign = -1 if event.hold == "reversed" else 1
    return (
        sign if event.winner else 0,
        sign,
        usage.input,
        usage.cache_read,
        usage.cache_write_5m,
        usage.cache_write_1h,
        usage.output,
        event.charge_picos,
        event.cost_picos,
    )
