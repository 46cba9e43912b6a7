"""Reports for whoever closes a month: the journal for the general ledger, what is earned on what
is spent, and budgets against what was spent.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, cast
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta
from sqlalchemy import Connection, select

from billing.csv_files import safe_text
from billing.money import counter_picos, format_decimal, format_picos, parse_picos
from billing.periods import Period, Window, month, window
from gateway import clock
from gateway.admin import fields, usage
from gateway.admin.cost_sight import OF_MARGIN, as_seen, sees_cost
from gateway.admin.operation import Answer, Call, Filter, Operation
from gateway.admin.problems import ProblemError, invalid
from gateway.admin.roles import Right
from gateway.admin.tables import CSV, csv_answer, prefers_csv
from gateway.stores.sql import budgets, grants, posting_reports, spent, tenants, usage_reports
from gateway.stores.sql.invoice_tables import invoices
from gateway.stores.sql.rows import Budget, Tenant
from gateway.stores.sql.tables import backends, former_names, keys, teams
from gateway.stores.sql.usage_reports import Group, Question, TooManyGroupsError

Month = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$",
        description="a month of the tenant's calendar; of UTC where no tenant is named",
        extra={"rule": "a month such as 2026-10"},
    ),
]
Item = dict[str, Any]
_UTC: Final = ZoneInfo("UTC")
_PRICE_DECIMALS: Final = 6
_OF_COST: Final = ("cost", "idle")
JOURNAL: Final = (
    "date", "reference", "kind", "account", "tenant", "part", "debit", "credit", "currency",
    "postings",
)  # fmt: skip
MARGIN: Final = (
    "requests", "tokens", "charge", "cost", "lost_cost", "margin", "margin_percent",
    "charge_per_million", "cost_per_million", "currency",
)  # fmt: skip
BUDGETS: Final = (
    "budget_id", "tenant", "scope", "period", "window_start", "window_end", "budget", "granted",
    "actual", "left", "used_percent", "elapsed_percent", "currency",
)  # fmt: skip
# Every other cell could have been named by somebody, and is shown as text.
_FIGURES: Final = frozenset(
    (
        *("postings", "debit", "credit"),
        *("charged", "unbilled", "covered", "accrued"),
        *("requests", "tokens", "charge", "cost", "lost_cost", "margin", "margin_percent"),
        *("charge_per_million", "cost_per_million"),
        *("budget", "granted", "actual", "left", "used_percent", "elapsed_percent"),
        *("low", "forecast", "high", "interval_percent", "history_days"),
    )
)
_AT_BEFORE_US: Final = clock.parse_rfc3339("9999-01-01T00:00:00Z")  # a quarter on is a date still


class MonthQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """By default the month that it is."""

    period: Month | None = None
    tenant_id: Filter | None = None


class MarginQuery(usage.UsageQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """As `/usage`; or of a `period`, as the other reports, in place of from and to."""

    period: Month | None = None


class BudgetsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`at`: an instant of the windows that are asked for; now by default. Grants count that were in
    force then: made by that instant, and neither over nor taken back yet.
    """

    at: fields.Instant | None = None


class ReportView(msgspec.Struct, frozen=True, kw_only=True):
    """`from` is inside, `to` is not. Items have the columns of the CSV, amounts exact."""

    from_: str = msgspec.field(name="from")
    to: str
    items: tuple[Item, ...]


async def _journal(call: Call) -> Answer:
    """Days are the tenant's own, or UTC's where several are asked for."""

    def work(connection: Connection) -> tuple[Window, list[Item]]:
        tenant_id, zone, span = month_asked(call, connection)
        names, numbers = names_of_all(connection), _numbers(connection)
        sums: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0])
        found = posting_reports.posted(connection, span.start_us, span.end_us, tenant_id)
        for each in found:
            if each.kind in _OF_COST and not sees_cost(call):
                continue
            day = window("day", zone, each.bucket_us).id.removeprefix("d")
            said = "idle" if each.kind == "idle" else "usage"
            reference = numbers.get(each.entry) or each.entry or f"{said} {day}"
            key = (day, reference, each.kind, each.account, each.tenant_id, each.currency)
            figures = sums[key]
            figures[0], figures[1] = figures[0] + each.picos, figures[1] + each.entries
        return span, [
            _line(key, picos, count, names) for key, (picos, count) in sorted(sums.items())
        ]

    span, items = await call.read(work)
    return report_answer(call, span, JOURNAL, items)


def _line(key: tuple[str, ...], picos: int, entries: int, names: Mapping[str, str]) -> Item:
    day, reference, kind, account, tenant_id, currency = key
    part = account.rpartition("/")[2]
    return {
        "date": day,
        "reference": reference,
        "kind": kind,
        "account": account,
        "tenant": names.get(tenant_id, tenant_id),
        "part": "" if part == tenant_id else names.get(part, part),
        "debit": format_picos(max(picos, 0)),
        "credit": format_picos(max(-picos, 0)),
        "currency": currency,
        "postings": entries,
    }


async def _margin(call: Call) -> Answer:
    query: MarginQuery = call.query
    start_us, end_us = await _margin_span(call, query)
    group_by = usage.dimensions_of(query.group_by)
    question = Question(
        start_us=start_us,
        end_us=end_us,
        group_by=group_by,
        filters=usage.filters_of(query),
        within=await usage.within(call),
    )
    try:
        groups = await asyncio.to_thread(usage_reports.report, call.deps.engine, question)
    except TooManyGroupsError as fault:
        raise ProblemError(422, "too_many_groups", str(fault)) from None
    names = await call.read(names_of_all)
    items = as_seen(call, [_earned(group, group_by, names) for group in groups], OF_MARGIN)
    return report_answer(call, Window("", start_us, end_us), (*group_by, *MARGIN), items)


async def _margin_span(call: Call, query: MarginQuery) -> tuple[int, int]:
    if query.period is None:
        return usage.span_of(query)
    if (query.from_, query.to) != (None, None):
        raise invalid("period", "it stands in place of `from` and `to`", "give one or the other")
    _, _, span = await call.read(lambda connection: month_asked(call, connection))
    return span.start_us, span.end_us


def _earned(group: Group, group_by: Sequence[str], names: Mapping[str, str]) -> Item:
    tokens = group.input_tokens + group.cache_read_tokens + group.cache_write_tokens
    tokens += group.output_tokens
    margin = group.charge_picos - group.cost_picos
    return {
        **{name: names.get(value, value) for name, value in zip(group_by, group.by, strict=True)},
        "requests": group.requests,
        "tokens": tokens,
        "charge": format_picos(group.charge_picos),
        "cost": format_picos(group.cost_picos),
        "lost_cost": format_picos(group.lost_cost_picos),
        "margin": format_picos(margin),
        "margin_percent": _share(margin, group.charge_picos),
        "charge_per_million": _unit(group.charge_picos, tokens),
        "cost_per_million": _unit(group.cost_picos, tokens),
        "currency": group.currency,
    }


def _unit(picos: int, tokens: int) -> str | None:
    """To six decimals, half up. Of tokens that were charged, whatever was spent beside them."""
    if tokens <= 0:
        return None
    return format_decimal((2 * picos + tokens) // (2 * tokens), _PRICE_DECIMALS)


def _share(part: int, of: int) -> str | None:
    """Percent to two decimals, towards nothing."""
    if of <= 0:
        return None
    hundredths = abs(part) * 10_000 // of
    return format_decimal(-hundredths if part < 0 else hundredths, 2)


class _Allowed(msgspec.Struct, frozen=True):
    """Budgets, and what is known of them at an instant."""

    budgets: Sequence[Budget]
    tenants: Mapping[str, Tenant]
    granted: Mapping[str, int]  # picos by budget
    names: Mapping[str, str]


async def _budgets(call: Call) -> Answer:
    query: BudgetsQuery = call.query
    at_us = clock.now_us() if query.at is None else fields.instant(query.at, "at")
    if at_us >= _AT_BEFORE_US:
        raise invalid("at", f"no window of {query.at} has an end", "ask before the year 9999")

    def work(connection: Connection) -> _Allowed:
        only = call.visible(connection, "budgets")
        more: dict[str, int] = defaultdict(int)
        for each in grants.in_force_at(connection, at_us):
            more[each.budget_id] += parse_picos(each.amount)
        return _Allowed(
            budgets.RECORDS.page(connection, {}, only=only),
            {each.id: each for each in tenants.RECORDS.all(connection)},
            more,
            names_of_all(connection),
        )

    found = await call.read(work)
    asked = {}
    for each in found.budgets:
        zone = ZoneInfo(found.tenants[each.tenant_id].timezone)
        span = window(cast("Period", each.period), zone, at_us)
        scope = (each.tenant_id, each.scope_kind, each.scope_id)
        figure = spent.Asked(*scope, (span.start_us, span.end_us), tokens=False)
        asked[each.id] = (span, figure)
    figures = {figure for _, figure in asked.values()}
    totals = await asyncio.to_thread(spent.totals, call.deps.engine, figures, ())
    items = []
    for each in found.budgets:
        span, figure = asked[each.id]
        items.append(_held_against(each, span, totals[figure], at_us, found))
    return report_answer(call, Window("", at_us, at_us), BUDGETS, items)


def _held_against(budget: Budget, span: Window, counted: int, at_us: int, found: _Allowed) -> Item:
    """`left` and `used_percent` are of the amount and what is granted beyond it."""
    names, currency = found.names, found.tenants[budget.tenant_id].currency
    amount, granted = parse_picos(budget.amount), found.granted.get(budget.id, 0)
    actual, cap = counter_picos(counted, currency), amount + granted
    passed = min(at_us, span.end_us) - span.start_us
    return {
        "budget_id": budget.id,
        "tenant": names.get(budget.tenant_id, budget.tenant_id),
        "scope": f"{budget.scope_kind} {names.get(budget.scope_id, budget.scope_id)}",
        "period": budget.period,
        "window_start": clock.rfc3339(span.start_us),
        "window_end": clock.rfc3339(span.end_us),
        "budget": format_picos(amount),
        "granted": format_picos(granted),
        "actual": format_picos(actual),
        "left": format_picos(cap - actual),
        "used_percent": _share(actual, cap),
        "elapsed_percent": _share(passed, span.end_us - span.start_us),
        "currency": currency,
    }


def month_asked(call: Call, connection: Connection) -> tuple[str | None, ZoneInfo, Window]:
    """The tenant that is asked for or the only one in sight, and the month of its calendar."""
    query: MonthQuery = call.query
    tenant_id = query.tenant_id
    if call.principal.tenant_id is not None:
        if tenant_id not in {None, call.principal.tenant_id}:
            raise invalid("tenant_id", f"there is no tenant {tenant_id!r:.80}")
        tenant_id = call.principal.tenant_id
    zone = _UTC
    if tenant_id is not None:
        tenant = tenants.RECORDS.one(connection, id=tenant_id)
        if tenant is None:
            raise invalid("tenant_id", f"there is no tenant {tenant_id!r:.80}")
        zone = ZoneInfo(tenant.timezone)
    if query.period is None:
        return tenant_id, zone, window("month", zone, clock.now_us())
    try:
        return tenant_id, zone, month(query.period, zone)
    except ValueError as fault:
        raise invalid("period", str(fault)) from None


def names_of_all(connection: Connection) -> dict[str, str]:
    """What everything is called, or was."""
    tables = (former_names, backends, keys, teams, tenants.RECORDS.table)
    return {
        row.id: row.name
        for table in tables
        for row in connection.execute(select(table.c.id, table.c.name))
    }


def _numbers(connection: Connection) -> dict[str, str]:
    issued = select(invoices.c.id, invoices.c.number).where(invoices.c.number.is_not(None))
    return {row.id: row.number for row in connection.execute(issued)}


def report_answer(
    call: Call, span: Window, columns: Sequence[str], items: Sequence[Item]
) -> Answer:
    """As JSON, or as CSV where that is preferred; `columns` are those of the CSV."""
    if prefers_csv(call.accept):
        rows = _csv(columns, items)
        return Answer(ready=csv_answer(rows, {"cache-control": "no-store"}))
    start, end = clock.rfc3339(span.start_us), clock.rfc3339(span.end_us)
    return Answer(ReportView(from_=start, to=end, items=tuple(items)))


def _csv(columns: Sequence[str], items: Sequence[Item]) -> Iterator[tuple[str, ...]]:
    yield tuple(columns)
    for item in items:
        told = ("" if item[name] is None else str(item[name]) for name in columns)
        yield tuple(
            cell if name in _FIGURES else safe_text(cell)
            for name, cell in zip(columns, told, strict=True)
        )


def operations() -> list[Operation]:
    both: dict[str, Any] = {
        "answers": ReportView,
        "media_types": ("application/json", CSV),
        "refusals": (422,),
    }
    return [
        Operation(
            "GET", "/reports/journal", "reports", "Export the journal for a general ledger",
            _journal, right=Right.INVOICES_READ, query=MonthQuery, **both,
            description="A line a day, account and reference: of usage the day's, of what was "
            "issued its number. Each reference's debits are its credits, in every currency. What "
            "backends cost is left out for tenants that are not shown it.",
        ),
        Operation(
            "GET", "/reports/margin", "reports", "Hold what is charged against what it costs",
            _margin, right=Right.USAGE_READ, query=MarginQuery, **both,
            description="By anything that `/usage` groups by; with `day`, the cost of a million "
            "tokens over time. `lost_cost` is of attempts that did not win: `/usage/requests` has "
            "them with their requests. Cost and margin are null for tenants that are not shown "
            "them.",
        ),
        Operation(
            "GET", "/reports/budgets", "reports", "Hold budgets against what was spent", _budgets,
            right=Right.BUDGETS_READ, query=BudgetsQuery, **both,
            description="By the ledger, in the window that the instant is in, as budgets count: "
            "each charge rounded up to a nano (a millionth, of currencies with small units), and "
            "what was priced anew as it was first. `left` and `used_percent` count `granted`: what "
            "grants in force at the instant allow beyond the budget.",
        ),
    ]  # fmt: skip
