"""Provider bills as they were imported, and the usage rows that they are held against."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import BigInteger, ColumnElement, Connection, case, cast, func, select

from billing.meters import Meters, Provenance
from billing.prices import RateCard
from billing.provider_bills import Bill, BillLine
from billing.reconciliation import Metered
from gateway import clock
from gateway.stores.sql import rate_cards
from gateway.stores.sql.bulk import append
from gateway.stores.sql.exact import exact_sum, require_room, whole
from gateway.stores.sql.provider_bill_tables import provider_bill_lines, provider_bills
from gateway.stores.sql.records import Records
from gateway.stores.sql.tables import usage_rows

_DAY_US: Final = 86_400_000_000
_TOKENS: Final = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
)


class ProviderBill(msgspec.Struct, frozen=True, kw_only=True):
    """One imported file, for the attempts at some backends in one UTC month."""

    id: str
    name: str
    backend_ids: tuple[str, ...]
    period: str
    currency: str
    decimals: int
    rows: int
    total_picos: int
    sha256: str
    imported_by: str
    created_at_us: int


RECORDS: Final = Records(provider_bills, ProviderBill)


def add(connection: Connection, row: ProviderBill, lines: Sequence[BillLine]) -> None:
    """TooLargeError before anything is written."""
    dialect = connection.dialect.name
    for line in lines:
        named = f"the line of {line.day}, {line.model}, {line.meter}"
        require_room(dialect, line.amount_picos, named)
        require_room(dialect, line.repeated_picos, f"what is repeated in {named}")
    require_room(dialect, row.total_picos, "the bill as a whole")
    RECORDS.add(connection, row)
    values = [(row.id, *msgspec.structs.astuple(line)) for line in lines]
    append(connection, provider_bill_lines, values)


def bill_of(connection: Connection, row: ProviderBill) -> Bill:
    columns = [provider_bill_lines.c[name] for name in _COLUMNS]
    found = connection.execute(select(*columns).where(provider_bill_lines.c.bill_id == row.id))
    lines = tuple(sorted(BillLine(**dict(line)) for line in found.mappings()))
    return Bill(currency=row.currency, decimals=row.decimals, rows=row.rows, lines=lines)


_COLUMNS: Final = ("day", "model", "meter", "quantity", "amount_picos", "lines",
                   "repeated_quantity", "repeated_picos")  # fmt: skip


def metered(
    connection: Connection, backend_ids: Sequence[str], start_us: int, end_us: int
) -> Iterator[tuple[str, Metered]]:
    """What was admitted in [start, end) and sent to the backends, by UTC day, with its currency.
    Of attempts that lost, too: a provider bills them all.
    """
    of = usage_rows.c
    day = of.admitted_at_us - of.admitted_at_us % _DAY_US
    keys = (day, of.upstream_model, of.currency, of.provenance, of.winner, of.cost_card)
    dialect = connection.dialect.name
    sign = case((of.hold == "reversed", -1), else_=1)
    sums = [func.sum(of[name]) for name in _TOKENS]
    told = [func.sum(_told(dialect, index, sign)) for index in range(len(_TOKENS))]
    query = (
        select(*keys, func.sum(sign), *exact_sum(dialect, of.cost_picos), *sums, *told)
        .where(of.backend_id.in_(list(backend_ids)))
        .where(of.admitted_at_us >= start_us, of.admitted_at_us < end_us)
        .group_by(*keys)
        .order_by(*keys)
    )
    found = connection.execute(query).all()
    cards = rate_cards.get(connection, {row[5] for row in found} - {None})
    return (_metered(row, cards) for row in found)


def _told(dialect: str, index: int, sign: ColumnElement[int]) -> ColumnElement[Any]:
    """Of what the backend said, a meter; what was booked, where it said nothing."""
    of = usage_rows.c
    if dialect == "postgresql":
        said: ColumnElement[Any] = cast(of.reported.op("::json ->>")(index), BigInteger)
    else:
        said = func.json_extract(of.reported, f"$[{index}]")
    return func.coalesce(said * sign, of[_TOKENS[index]])


def _metered(row: Any, cards: Mapping[str, RateCard]) -> tuple[str, Metered]:
    day_us, model, currency, provenance, winner, card, rows, high, low, *counts = row
    tokens = [int(count) for count in counts]
    return currency, Metered(
        day=clock.rfc3339(int(day_us))[:10],
        model=model,
        provenance=Provenance(provenance),
        winner=winner,
        card=None if card is None else cards[card],
        rows=int(rows),
        usage=Meters(*tokens[: len(_TOKENS)]),
        told=Meters(*tokens[len(_TOKENS) :]),
        cost_picos=whole(high, low),
    )
