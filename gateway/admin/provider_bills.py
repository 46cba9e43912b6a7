"""Bills of providers: imported as they came, and held against what was metered."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Annotated, Final
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from billing import provider_bills as bills
from billing.csv_files import safe_text
from billing.money import format_decimal, format_picos, parse_picos
from billing.periods import month
from billing.provider_bills import BillError, BillLine
from billing.reconciliation import Cause, Compared, by_cause, compare
from gateway import clock, ids
from gateway.admin import fields
from gateway.admin.operation import Answer, Call, Operation, Page
from gateway.admin.problems import conflict, invalid, missing
from gateway.admin.resource import page, page_of
from gateway.admin.roles import Right
from gateway.admin.tables import CSV, csv_answer, prefers_csv
from gateway.stores.sql import backends, provider_bills
from gateway.stores.sql.provider_bills import ProviderBill

Signed = Annotated[
    str,
    Meta(
        max_length=30,
        pattern=r"^-?[0-9]{1,15}(\.[0-9]{1,12})?$",
        extra={"rule": 'an exact amount such as "12.50", negative for a credit'},
    ),
]
Month = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$",
        description="a month of UTC, as providers bill",
        extra={"rule": "a month such as 2026-10"},
    ),
]
Digest = Annotated[
    str, Meta(pattern=r"^([0-9a-f]{64})?$", extra={"rule": "a SHA-256 of 64 hexadecimal digits"})
]
Count = Annotated[int, Meta(ge=-bills.MAX_QUANTITY, le=bills.MAX_QUANTITY)]
_UTC: Final = ZoneInfo("UTC")
_DECIMALS: Final = 6
_TRAILING: Final = re.compile(r"0+$")


class LineBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was billed of one day, model and meter: of one line of the file, or of several."""

    date: str
    model: str
    meter: str
    quantity: Count
    amount: Signed
    lines: Annotated[int, Meta(ge=1, le=10**9)] = 1
    repeated_quantity: Count = 0
    repeated_amount: Signed = "0"


class BillBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`meterhouse bill import` makes it from a CSV file. `decimals`: of the finest amount in it;
    by default that of the lines.
    """

    name: fields.Name
    backend_ids: Annotated[tuple[fields.Id, ...], Meta(min_length=1, max_length=64)]
    period: Month
    currency: fields.Currency
    lines: Annotated[tuple[LineBody, ...], Meta(min_length=1, max_length=10_000)]
    decimals: Annotated[int, Meta(ge=0, le=12)] | None = None
    sha256: Digest = ""


class BillView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    backend_ids: tuple[str, ...]
    period: str
    currency: str
    rows: int
    total: str
    sha256: str
    imported_by: str
    created_at: str


class CauseView(msgspec.Struct, frozen=True, kw_only=True):
    """One reason of a gap; positive: they billed more than we metered. `rows`: how many usage rows
    it speaks of.
    """

    cause: str
    meter: str
    tokens: int
    amount: str
    rows: int
    billed_per_million: str | None
    metered_per_million: str | None


class DayView(msgspec.Struct, frozen=True, kw_only=True):
    """One day and model; `gap` is the sum of its causes' amounts, exactly."""

    day: str
    model: str
    billed_tokens: int
    metered_tokens: int
    billed: str
    metered: str
    gap: str
    estimated_tokens: int
    losing_tokens: int
    causes: tuple[CauseView, ...]


class ReconciliationView(msgspec.Struct, frozen=True, kw_only=True):
    """The days that do not agree, or all of them. `causes` are those of the whole month and add up
    to `gap`; `gap_percent` is of what was metered. What is booked in other currencies than the
    bill's has its tokens compared (`other_currency`), and its cost in `other_currencies`.
    """

    bill_id: str
    period: str
    currency: str
    billed: str
    metered: str
    gap: str
    gap_percent: str | None
    causes: dict[str, str]
    agreeing: int
    days: tuple[DayView, ...]
    other_currencies: dict[str, str]


class ReconciliationQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`all`: also days that agree."""

    all: bool = False


async def _import(call: Call) -> Answer:
    body = call.body(BillBody)
    fields.checked("period", month, body.period, _UTC)
    lines = _lines(body)
    decimals = body.decimals
    if decimals is None:
        decimals = max(len(_TRAILING.sub("", x.amount.partition(".")[2])) for x in body.lines)
    row = ProviderBill(
        id=ids.new("bill"),
        name=body.name,
        backend_ids=tuple(sorted(set(body.backend_ids))),
        period=body.period,
        currency=fields.currency(body.currency),
        decimals=decimals,
        rows=sum(line.lines for line in lines),
        total_picos=sum(line.amount_picos for line in lines),
        sha256=body.sha256,
        imported_by=call.principal.id,
        created_at_us=clock.now_us(),
    )

    def work(connection: Connection) -> None:
        call.changed(connection, "provider-bills", None, row)
        for each in row.backend_ids:
            if not backends.RECORDS.exists(connection, id=each):
                raise invalid("backend_ids", f"there is no backend {each!r}")
        if row.sha256:
            _require_new(connection, row)
        provider_bills.add(connection, row, lines)

    await call.write(work)
    return Answer(_view(row), location=f"/admin/v1/provider-bills/{row.id}")


def _require_new(connection: Connection, row: ProviderBill) -> None:
    same = provider_bills.RECORDS.all(connection, sha256=row.sha256, period=row.period)
    for each in same:
        if set(each.backend_ids) & set(row.backend_ids):
            raise conflict("already_imported", f"this file is {each.id} ({each.name}) already")


def _lines(body: BillBody) -> list[BillLine]:
    """422 for a line that is unfit, or of another month; days, models and meters are there once."""
    lines: dict[tuple[str, str, str], BillLine] = {}
    for index, given in enumerate(body.lines):
        field = f"lines[{index}]"
        line = BillLine(
            given.date,
            given.model,
            given.meter,
            given.quantity,
            parse_picos(given.amount),
            given.lines,
            given.repeated_quantity,
            parse_picos(given.repeated_amount),
        )
        try:
            bills.check(line)
        except BillError as fault:
            raise invalid(field, str(fault)) from None
        if not line.day.startswith(body.period):
            raise invalid(f"{field}.date", f"{line.day} is not in {body.period}")
        if lines.setdefault((line.day, line.model, line.meter), line) is not line:
            raise invalid(field, "its day, model and meter are there twice; add them up")
    return sorted(lines.values())


async def _list(call: Call) -> Answer:
    query: Page = call.query
    found = await call.read(
        lambda connection: provider_bills.RECORDS.page(
            connection,
            {},
            query.cursor,
            query.limit + 1,
            call.visible(connection, call.noun),
            descending=query.descending,
        )
    )
    return Answer(page([_view(row) for row in found[: query.limit]], found, query.limit))


async def _read(call: Call) -> Answer:
    return Answer(_view(await call.read(lambda connection: _found(connection, call.id))))


async def _reconcile(call: Call) -> Answer:
    query: ReconciliationQuery = call.query

    def work(connection: Connection) -> tuple[ProviderBill, tuple[Compared, ...], dict[str, int]]:
        row = _found(connection, call.id)
        span = month(row.period, _UTC)
        bill = provider_bills.bill_of(connection, row)
        found, others = [], defaultdict[str, int](int)
        for currency, each in provider_bills.metered(
            connection, row.backend_ids, span.start_us, span.end_us
        ):
            if currency == row.currency:
                found.append(each)
                continue
            others[currency] += each.cost_picos
            found.append(msgspec.structs.replace(each, card=None, cost_picos=0, elsewhere=True))
        return row, compare(bill, found), dict(others)

    row, compared, others = await call.read(work)
    if prefers_csv(call.accept):
        rows = _rows(row, compared)
        return Answer(ready=csv_answer(rows, {"cache-control": "no-store"}))
    shown = [each for each in compared if query.all or each.causes]
    return Answer(_reconciled(row, compared, shown, others))


def _found(connection: Connection, identifier: str) -> ProviderBill:
    row = provider_bills.RECORDS.one(connection, id=identifier)
    if row is None:
        raise missing("provider bill", identifier)
    return row


def _reconciled(
    row: ProviderBill,
    compared: Sequence[Compared],
    shown: Sequence[Compared],
    others: dict[str, int],
) -> ReconciliationView:
    billed = sum(each.billed_picos for each in compared)
    metered = sum(each.metered_picos for each in compared)
    gap = billed - metered
    percent = None if not metered else _percent(gap, metered)
    return ReconciliationView(
        bill_id=row.id,
        period=row.period,
        currency=row.currency,
        billed=format_picos(billed),
        metered=format_picos(metered),
        gap=format_picos(gap),
        gap_percent=percent,
        causes={cause: format_picos(picos) for cause, picos in by_cause(compared).items()},
        agreeing=sum(not each.causes for each in compared),
        days=tuple(map(_day, shown)),
        other_currencies={each: format_picos(picos) for each, picos in sorted(others.items())},
    )


def _percent(gap: int, metered: int) -> str:
    """To two decimals, towards nothing."""
    hundredths = abs(gap) * 10_000 // abs(metered)
    return format_decimal(-hundredths if (gap < 0) != (metered < 0) else hundredths, 2)


def _day(each: Compared) -> DayView:
    return DayView(
        day=each.day,
        model=each.model,
        billed_tokens=each.billed_tokens,
        metered_tokens=each.metered_tokens,
        billed=format_picos(each.billed_picos),
        metered=format_picos(each.metered_picos),
        gap=format_picos(each.gap_picos),
        estimated_tokens=each.estimated_tokens,
        losing_tokens=each.losing_tokens,
        causes=tuple(map(_cause, each.causes)),
    )


def _cause(each: Cause) -> CauseView:
    return CauseView(
        cause=each.cause,
        meter=each.meter,
        tokens=each.tokens,
        amount=format_picos(each.amount_picos),
        rows=each.rows,
        billed_per_million=each.billed_per_million,
        metered_per_million=each.metered_per_million,
    )


def _rows(row: ProviderBill, compared: Sequence[Compared]) -> Iterator[tuple[str, ...]]:
    """One line a cause: the amounts of a column add up to the whole gap."""
    yield (
        "day", "model", "cause", "meter", "tokens", "amount", "currency", "rows",
        "billed_per_million", "metered_per_million",
    )  # fmt: skip
    for each in compared:
        for cause in each.causes:
            prices = (cause.billed_per_million or "", cause.metered_per_million or "")
            money = (format_picos(cause.amount_picos), row.currency, str(cause.rows))
            told = (cause.cause, cause.meter, str(cause.tokens))
            yield (each.day, safe_text(each.model), *told, *money, *prices)


def _view(row: ProviderBill) -> BillView:
    return BillView(
        id=row.id,
        name=row.name,
        backend_ids=row.backend_ids,
        period=row.period,
        currency=row.currency,
        rows=row.rows,
        total=format_picos(row.total_picos),
        sha256=row.sha256,
        imported_by=row.imported_by,
        created_at=clock.rfc3339(row.created_at_us),
    )


def operations() -> list[Operation]:
    path, tag, read = "/provider-bills", "provider-bills", Right.PROVIDER_BILLS_READ
    return [
        Operation(
            "GET", path, tag, "List the bills of providers", _list,
            right=read, query=Page, answers=page_of(BillView),
        ),
        Operation(
            "POST", path, tag, "Import a bill of a provider", _import,
            right=Right.PROVIDER_BILLS_IMPORT, status=201, body=BillBody, answers=BillView,
            refusals=(409, 422),
            description="It stays as it is. A bill that the provider corrected is imported again "
            "beside it.",
        ),
        Operation(
            "GET", f"{path}/{{id}}", tag, "Read an imported bill", _read,
            right=read, answers=BillView, refusals=(404,),
        ),
        Operation(
            "GET", f"{path}/{{id}}/reconciliation", tag, "Hold a bill against what was metered",
            _reconcile, right=read, query=ReconciliationQuery, answers=ReconciliationView,
            refusals=(404,), media_types=("application/json", CSV),
            description="By day and model of the bill's UTC month: every gap with its causes, "
            "whose amounts add up to it exactly.",
        ),
    ]  # fmt: skip
