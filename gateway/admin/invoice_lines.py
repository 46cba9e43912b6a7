"""The lines of an invoice as JSON, page by page."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta
from sqlalchemy import Connection, select

from billing.exchange import Amounts
from billing.invoices import InvoiceLine
from billing.money import format_minor
from gateway import clock
from gateway.admin.invoices import found_in
from gateway.admin.operation import Answer, Call, Filter, Operation, PageSize
from gateway.admin.roles import Right
from gateway.stores.sql.invoice_tables import invoice_lines

Position = Annotated[
    str, Meta(pattern=r"^[0-9]{1,9}$", extra={"rule": "the `next` of the page before"})
]
_FILTERS: Final = ("cost_center", "team", "key", "model", "line_kind")


class LineQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    limit: PageSize = 50
    cursor: Position | None = None
    cost_center: Filter | None = None
    team: Filter | None = None
    key: Filter | None = None
    model: Filter | None = None
    line_kind: Filter | None = None


class LineView(msgspec.Struct, frozen=True, kw_only=True):
    """`amount` is exact; `printed` is what the page shows, and adds up to the total. A line that
    corrects an earlier invoice has that one's number and its own charge period. `number` is its
    place in lines.csv, and what the page calls it.
    """

    number: int
    line_id: str
    line_kind: str
    cost_center: str
    team: str
    key: str
    model: str
    backend_region: str
    meter: str
    quantity: int
    unit: str
    unit_price_per_million: str
    list_price_per_million: str
    price_version: str
    amount: str
    printed: str
    currency: str
    charge_period_start: str
    charge_period_end: str
    provenance: str
    corrects_invoice: str | None
    credits_line: str | None


class LinePage(msgspec.Struct, frozen=True, kw_only=True):
    items: tuple[LineView, ...]
    next: str | None


async def _lines(call: Call) -> Answer:
    query: LineQuery = call.query

    def work(connection: Connection) -> LinePage:
        invoice = found_in(connection, call)
        of, amounts = invoice_lines.c, Amounts(invoice.exchanged)
        given = {name: getattr(query, name) for name in _FILTERS}
        columns = (of[name] for name in InvoiceLine.__struct_fields__)
        rows = connection.execute(
            select(of.position, *columns)
            .where(of.invoice_id == invoice.id, of.position > int(query.cursor or 0))
            .where(*(of[name] == value for name, value in given.items() if value is not None))
            .order_by(of.position)
            .limit(query.limit + 1)
        )
        found = [dict(row) for row in rows.mappings()]
        positions = [row.pop("position") for row in found]
        shown = [InvoiceLine(**row) for row in found[: query.limit]]
        return LinePage(
            items=tuple(
                line_view(number, line, invoice.currency, amounts)
                for number, line in zip(positions, shown, strict=False)
            ),
            next=str(positions[query.limit - 1]) if found[query.limit :] else None,
        )

    return Answer(await call.read(work))


def operations() -> list[Operation]:
    return [
        Operation(
            "GET", "/invoices/{id}/lines", "invoices", "List the lines of an invoice", _lines,
            right=Right.INVOICES_READ, query=LineQuery, answers=LinePage, refusals=(404,),
        )
    ]  # fmt: skip


def line_view(number: int, line: InvoiceLine, currency: str, amounts: Amounts) -> LineView:
    same = {
        name: getattr(line, name)
        for name in LineView.__struct_fields__
        if name in InvoiceLine.__struct_fields__
    }
    return LineView(
        number=number,
        **same,
        list_price_per_million=amounts.price(line.listed_picos, line.corrects_invoice),
        unit_price_per_million=amounts.price(line.picos_per_token, line.corrects_invoice),
        amount=amounts.text(line.line_kind, line.amount_picos, line.corrects_invoice),
        printed=format_minor(line.amount_minor, currency),
        currency=currency,
        charge_period_start=clock.rfc3339(line.period_start_us),
        charge_period_end=clock.rfc3339(line.period_end_us),
    )
