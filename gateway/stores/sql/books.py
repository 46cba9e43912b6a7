"""Whether the books agree with themselves: everything that follows from the usage rows is derived
from them anew and compared, and what was issued is held against what it was.

Memory does not grow with the ledger, but for the lines of one invoice at a time.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Final

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    String,
    case,
    func,
    literal,
    select,
    union_all,
)

from billing.money import format_picos
from billing.rollups import BUCKET_US, KEY_FIELDS
from gateway.stores.sql import idle_entries, invoice_postings, invoices, journal, manifests
from gateway.stores.sql.exact import comes_to_something, exact_sum, whole
from gateway.stores.sql.invoice_tables import invoice_series, invoice_usage
from gateway.stores.sql.invoice_tables import invoices as invoice_table
from gateway.stores.sql.invoices import Invoice
from gateway.stores.sql.rollups import rolled
from gateway.stores.sql.tables import postings, usage_rows
from gateway.stores.sql.unreadable import looked_at, said
from policies.seals import Block

_MOST: Final = 20  # faults of one kind that are told
_TOKENS: Final = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
)
_COUNTS: Final = ("requests", "attempts", *_TOKENS)
_MONEY: Final = ("charge_picos", "cost_picos")


class Books(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at, and what does not agree, in words."""

    usage_rows: int
    invoices: int
    entries: int  # that are sealed
    heads: tuple[Block, ...]  # of the ledger's chains, to be kept elsewhere
    faults: tuple[str, ...]


def check(connection: Connection, anchors: Sequence[journal.Anchor] = ()) -> Books:
    """As of the caller's one view of the database."""
    sealed: list[journal.Verified] = []

    def chains(connection: Connection) -> Iterable[str]:
        sealed.append(journal.verify(connection, anchors))
        return sealed[0].faults

    looks = {"the ledger's chains": chains, **_LOOKS}
    faults = [
        fault
        for what, look in looks.items()
        for fault in looked_at(what, partial(look, connection))
    ]
    rows = connection.scalar(select(func.count()).select_from(usage_rows)) or 0
    issued = select(func.count()).select_from(invoice_table).where(invoice_table.c.number != "")
    return Books(
        usage_rows=rows,
        invoices=connection.scalar(issued) or 0,
        entries=sum(each.entries for each in sealed),
        heads=tuple(head for each in sealed for head in each.heads),
        faults=tuple(faults),
    )


def unfinished(fault: Exception) -> Books:
    """Of a check that came to no end: nothing is said to agree."""
    words = f"the check came to no end: {said(fault)}"
    return Books(usage_rows=0, invoices=0, entries=0, heads=(), faults=(words,))


def _rollups(connection: Connection) -> Iterator[str]:
    """Every figure of every rollup is the sum of its usage rows."""
    both = union_all(_added(usage_rows), _added(rolled)).subquery()
    keys = [both.c[name] for name in KEY_FIELDS]
    dialect = connection.dialect.name
    sums: list[ColumnElement[Any]] = [func.sum(both.c[name]) for name in _COUNTS]
    wrong = [each != 0 for each in sums]
    wrong += [comes_to_something(dialect, both.c[name]) for name in _MONEY]
    differs = func.min(both.c.currency) != func.max(both.c.currency)
    for each in wrong:
        differs |= each
    found = connection.execute(select(*keys).group_by(*keys).having(differs).limit(_MOST))
    for row in found.mappings():
        whose = f"team {row['team_id']}, key {row['key_id']}, model {row['model']}"
        yield f"the rollup of {whose} at {row['bucket_us']} us is not the sum of its usage rows"


def _added(table: FromClause) -> Select[Any]:
    """Usage rows count as they are, rollups against them."""
    of = table.c
    if table is rolled:
        figures: dict[str, Any] = {name: -of[name] for name in (*_COUNTS, *_MONEY)}
        keys: dict[str, Any] = {name: of[name] for name in KEY_FIELDS}
    else:
        figures = {name: of[name] for name in (*_TOKENS, *_MONEY)}
        one = case((of.hold == "reversed", -1), else_=1)
        figures |= {"attempts": one, "requests": case((of.winner, one), else_=0)}
        at_us = of.admitted_at_us
        keys = {name: of[name] for name in KEY_FIELDS if name not in {"bucket_us", "cost_card"}}
        keys["bucket_us"] = at_us - at_us % BUCKET_US
        keys["cost_card"] = func.coalesce(of.cost_card, literal("", String))
    columns = {**keys, **figures, "currency": of.currency}
    names = (*KEY_FIELDS, "currency", *_COUNTS, *_MONEY)
    return select(*(columns[name].label(name) for name in names))


def _events(connection: Connection) -> Iterator[str]:
    """The postings of each event and kind add up to nothing."""
    of = postings.c
    query = (
        select(of.event_id, of.kind)
        .group_by(of.event_id, of.kind, of.currency)
        .having(comes_to_something(connection.dialect.name, of.amount_picos))
    )
    for event_id, kind in connection.execute(query.limit(_MOST)):
        yield f"the {kind} postings of {event_id} do not add up to nothing"


def _accounts(connection: Connection) -> Iterator[str]:
    """What teams owe, by the postings, is what their usage rows were charged."""
    dialect = connection.dialect.name
    owed = _by_tenant(
        connection,
        select(postings.c.tenant_id, *exact_sum(dialect, postings.c.amount_picos))
        .where(postings.c.account.like("receivable/%"), postings.c.kind == "charge")
        .group_by(postings.c.tenant_id),
    )
    charged = _by_tenant(
        connection,
        select(usage_rows.c.tenant_id, *exact_sum(dialect, usage_rows.c.charge_picos)).group_by(
            usage_rows.c.tenant_id
        ),
    )
    for tenant_id in sorted(owed | charged):
        pair = owed.get(tenant_id, 0), charged.get(tenant_id, 0)
        if pair[0] != pair[1]:
            said = " and ".join(map(format_picos, pair))
            yield f"what {tenant_id} owes and what it was charged are {said}"


def _by_tenant(connection: Connection, query: Select[Any]) -> dict[str, int]:
    return {tenant_id: whole(high, low) for tenant_id, high, low in connection.execute(query)}


def _invoices(connection: Connection) -> Iterator[str]:
    """What was issued is, byte by byte, what it was, and no more of it is credited than it has."""
    of = invoice_table.c
    issued = select(invoice_table).where(of.status != "draft").order_by(of.number)
    for row in connection.execute(issued).mappings().all():
        what = f"invoice {row['number']}"
        yield from looked_at(what, partial(_invoice, connection, Invoice(**row)))


def _invoice(connection: Connection, invoice: Invoice) -> Iterator[str]:
    if not manifests.of(connection, invoice).intact:
        yield f"invoice {invoice.number} is not what was issued"
    credited = sum(note.total_minor for note in invoices.credit_notes(connection, invoice.id))
    if credited and invoice.total_minor + credited < 0:
        yield f"more is credited of invoice {invoice.number} than it comes to"


def _billed(connection: Connection) -> Iterator[str]:
    """What was posted of each invoice is what follows from it, and it was taken back if it is
    voided; what was issued before there were such postings may have none yet.
    """
    began_us, of = journal.began_at_us(connection), invoice_table.c
    issued = select(invoice_table).where(of.status != "draft").order_by(of.number)
    for row in connection.execute(issued).mappings().all():
        invoice = Invoice(**row)
        what = f"what was posted of invoice {invoice.number}"
        yield from looked_at(what, partial(_posted, connection, invoice, began_us))


def _posted(connection: Connection, invoice: Invoice, began_us: int) -> Iterator[str]:
    there = invoice_postings.kept(connection, invoice.id)
    if not there and (invoice.issued_at_us or 0) < began_us:
        return
    wanted = invoice_postings.derived(connection, invoice)
    if invoice.status == "voided":
        wanted += invoice_postings.derived_void(connection, invoice)
    if there != set(wanted):
        yield f"the postings of invoice {invoice.number} are not those that follow from it"


def _series(connection: Connection) -> Iterator[str]:
    """As many numbers as were given out, and none beyond."""
    yield from _beyond(connection)
    for series, last in connection.execute(select(invoice_series)):
        numbers = {f"{series}-{n:06d}" for n in range(1, last + 1)}
        of = invoice_table.c.number
        there = set(connection.scalars(select(of).where(of.like(f"{series}-%"))))
        missing = sorted(numbers - there)
        if missing:
            yield f"series {series} has no invoice {missing[0]}"


def _beyond(connection: Connection) -> Iterator[str]:
    given = {row.series: row.last_number for row in connection.execute(select(invoice_series))}
    of = invoice_table.c.number
    for number in connection.scalars(select(of).where(of.is_not(None)).order_by(of)):
        series, _, counted = number.rpartition("-")
        if not counted.isdecimal() or int(counted) > given.get(series, 0):
            yield f"invoice {number} has a number that its series has not given out"


def _months(connection: Connection) -> Iterator[str]:
    """No instant is billed in two months of a tenant: in neither would the other's be missed."""
    of, head = invoice_usage.c, invoice_table.c
    span = (head.tenant_id, of.period_start_us, of.period_end_us)
    query = (
        select(*span)
        .join(invoice_table, head.id == of.invoice_id)
        .where(head.status == "issued")
        .distinct()
        .order_by(*span)
    )
    for (tenant_id, _, end_us), (next_id, start_us, _) in pairwise(connection.execute(query)):
        if tenant_id == next_id and start_us < end_us:
            yield f"two months that {tenant_id} was invoiced for overlap at {start_us} us"


_LOOKS: Final[Mapping[str, Callable[[Connection], Iterable[str]]]] = {
    "the rollups": _rollups,
    "the postings": _events,
    "what teams owe": _accounts,
    "the invoices": _invoices,
    "the invoices' postings": _billed,
    "the invoices' numbers": _series,
    "what boxes cost": idle_entries.faults,
    "the invoices' months": _months,
}
