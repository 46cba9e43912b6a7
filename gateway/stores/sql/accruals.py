"""What is accrued at the end of a month: what a tenant's invoices will say of all that is on none
by then, made as those are, so that the two cannot differ. Nothing is kept.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import Connection, func, select

from billing.drawdown import Sums, sums_of
from billing.invoices import OF_USAGE, rounded
from billing.periods import Window, month, window
from gateway.stores.sql import commitments, draft_lines, terms
from gateway.stores.sql.draft_lines import Before, Made, Part
from gateway.stores.sql.invoices import Invoice
from gateway.stores.sql.rollups import rolled
from gateway.stores.sql.rows import Tenant

_DRAFT: Final = "accrual"  # in place of the id of an invoice: its lines are kept nowhere


class Accrued(msgspec.Struct, frozen=True):
    """What the invoice of `period` will say of a team (`usage`), or of the tenant as a whole: of a
    kind of lines. In picos of the tenant's currency. `charged`: in the month that ends, at what it
    was booked at; `unbilled`: the same of all that is on no invoice; `covered`: what a commitment
    paid before; `accrued`: at the prices that the month decides, less what is covered.
    """

    period: str
    kind: str
    team: str = ""
    charged_picos: int = 0
    unbilled_picos: int = 0
    covered_picos: int = 0
    accrued_picos: int = 0


def of_month(connection: Connection, tenant: Tenant, period: str) -> list[Accrued]:
    """As at the end of the month, as if by then nothing more is used, by the prices, terms and
    commitments that are known now. Earlier months that were on no invoice are part of it, each as
    its own would say, one after the other.

    ValueError for a period not written `2026-11`; UnbalancedError when the ledger contradicts
    itself.
    """
    end_us = month(period, ZoneInfo(tenant.timezone)).end_us
    issued = draft_lines.issued(connection, tenant.id, end_us)
    kept = draft_lines.with_spans(connection, tenant.id, issued, end_us)
    agreed = terms.of(connection, tenant.id).terms
    closed = draft_lines.closed(issued)
    drawn: dict[str, Sums] = {}
    late: set[str] = set()  # closed months whose late usage an earlier one of these takes
    found: list[Accrued] = []
    for each in _open(connection, tenant, period, issued):
        own = Part(each, draft_lines.span(_calendar(each, tenant), each, kept), agreed)
        others = draft_lines.late_parts(connection, each, issued)
        parts = [own, *(part for part in others if part.period not in late)]
        late |= {part.period for part in parts}
        before = Before(closed=closed, over_by_us=end_us, stood_at_us=end_us, drawn=drawn)
        made = draft_lines.made(connection, tenant, _DRAFT, parts, before)
        found += _of_teams(made, each, is_last=each == period)
        found += _of_tenant(made, own, tenant.currency)
        closed = closed | {each}
        for key, sums in sums_of(made.lines).items():
            drawn[key] = drawn.get(key, Sums()) + sums
    return found


def _open(
    connection: Connection, tenant: Tenant, period: str, issued: Iterable[Invoice]
) -> list[str]:
    """The months on no invoice as a whole, from the first that has anything."""
    first_us = connection.scalar(
        select(func.min(rolled.c.bucket_us)).where(rolled.c.tenant_id == tenant.id)
    )
    begun = [each.first.isoformat()[:7] for each in commitments.agreed(connection, tenant)]
    begun += [each.period for each in issued]
    if first_us is not None:
        begun.append(window("month", ZoneInfo(tenant.timezone), first_us).id.removeprefix("m"))
    closed = draft_lines.closed(issued)
    found, each = [], min([*begun, period])
    while each <= period:
        if each not in closed:
            found.append(each)
        each = draft_lines.following(each)
    return found


def _calendar(period: str, tenant: Tenant) -> Window:
    return month(period, ZoneInfo(tenant.timezone))


def _of_teams(made: Made, period: str, *, is_last: bool) -> Iterator[Accrued]:
    charged = made.charged if is_last else {}
    unbilled, covered, accrued = Counter[str](), Counter[str](), Counter[str]()
    for each in made.covered:
        unbilled[each.team] += each.used.charge_picos
    for line in made.lines:
        if line.line_kind in OF_USAGE:
            paid = line.commitment_picos or 0 if line.commitment_paid else 0
            covered[line.team] += paid
            accrued[line.team] += line.amount_picos - paid
    for team in sorted({*charged, *unbilled, *accrued}):
        figures = charged.get(team, 0), unbilled[team], covered[team], accrued[team]
        if any(figures):
            yield Accrued(period, "usage", team, *figures)


def _of_tenant(made: Made, own: Part, currency: str) -> Iterator[Accrued]:
    """What commitments paid is told of the teams that used it. An invoice in another currency is
    rounded in that one.
    """
    sums = Counter[str]()
    for line in made.lines:
        if line.line_kind not in {*OF_USAGE, "drawdown"}:
            sums[line.line_kind] += line.amount_picos
    if own.terms.currency in {None, currency}:
        whole = rounded(made.lines, invoice_id=_DRAFT, currency=currency, period=own.span)
        sums["rounding"] = whole.rounding_picos
    for kind, picos in sums.items():
        if picos:
            yield Accrued(own.period, kind, accrued_picos=picos)
