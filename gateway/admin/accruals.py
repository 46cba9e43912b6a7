"""What is charged at the end of a month and on no invoice, and what the invoices will say of it."""

from typing import Final
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from billing.invoices import UnbalancedError
from billing.money import format_picos
from billing.periods import Window, window
from gateway import clock
from gateway.admin.operation import Answer, Call, Operation
from gateway.admin.problems import conflict, invalid
from gateway.admin.reports import Item, MonthQuery, ReportView, month_asked, report_answer
from gateway.admin.roles import Right
from gateway.admin.tables import CSV
from gateway.stores.sql import accruals, tenants
from gateway.stores.sql.accruals import Accrued
from gateway.stores.sql.rows import Tenant

ACCRUAL: Final = (
    "tenant", "period", "team", "kind", "charged", "unbilled", "covered", "accrued", "currency",
)  # fmt: skip


async def _accrual(call: Call) -> Answer:
    """Of every tenant by its own calendar, whatever month that is where nobody names one."""

    def work(connection: Connection) -> tuple[Window, list[Item]]:
        tenant_id, _, span = month_asked(call, connection)
        asked = {} if tenant_id is None else {"id": tenant_id}
        items: list[Item] = []
        for tenant in sorted(tenants.RECORDS.all(connection, **asked), key=_name):
            now = window("month", ZoneInfo(tenant.timezone), clock.now_us()).id.removeprefix("m")
            period = call.query.period or now
            if period > now and tenant_id is not None:
                raise invalid("period", f"{period} has not begun in {tenant.timezone}")
            if period <= now:
                found = accruals.of_month(connection, tenant, period)
                items += [_item(tenant, each) for each in found]
        return span, items

    try:
        span, items = await call.read(work)
    except UnbalancedError as fault:
        raise conflict("ledger_unbalanced", str(fault)) from None
    return report_answer(call, span, ACCRUAL, items)


def _name(tenant: Tenant) -> str:
    return tenant.name


def _item(tenant: Tenant, each: Accrued) -> Item:
    return {
        "tenant": tenant.name,
        "period": each.period,
        "team": each.team,
        "kind": each.kind,
        "charged": format_picos(each.charged_picos),
        "unbilled": format_picos(each.unbilled_picos),
        "covered": format_picos(each.covered_picos),
        "accrued": format_picos(each.accrued_picos),
        "currency": tenant.currency,
    }


def operations() -> list[Operation]:
    return [
        Operation(
            "GET", "/reports/accrual", "reports", "See what is charged and on no invoice", _accrual,
            right=Right.INVOICES_READ, query=MonthQuery, answers=ReportView,
            media_types=("application/json", CSV), refusals=(409, 422),
            description="As at the end of the month, of every tenant by its own calendar. By team "
            "and `period`, the month whose invoice will have it: what the month was charged, what "
            "was on no invoice at its end (both at what it was booked at), what of that a "
            "commitment paid before (`covered`), and what the invoice will say, less what is "
            "covered (`accrued`). Then, of no team, what the invoice has besides: `commitment` "
            "fees, `true_up` and `minimum` as if nothing more is used, `rounding`. Together, what "
            "is accrued is the total of the invoice; in the tenant's currency, where that has "
            "another.",
        ),
    ]  # fmt: skip
