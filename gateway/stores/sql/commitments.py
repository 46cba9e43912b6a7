"""Commitments as they are kept, and how each term of them stands before an invoice is made."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, timedelta
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import Connection, select

from billing import commitments as billing
from billing.commitments import Term
from billing.drawdown import AMOUNTS, PARTS, Standing, Sums
from billing.periods import days
from gateway.stores.sql.exact import exact_sum, whole
from gateway.stores.sql.invoice_tables import commitments, invoice_lines, invoices
from gateway.stores.sql.invoices import stood
from gateway.stores.sql.records import Records
from gateway.stores.sql.rows import Commitment, Tenant

RECORDS: Final = Records(commitments, Commitment)
_DAY: Final = timedelta(days=1)
_ONE_MONTH: Final = timedelta(days=31)


class Drafting(msgspec.Struct, frozen=True):
    """The invoice that is made: its month, whether that is over, the instants at which the months
    begin that it has usage of, and the months that are invoiced as a whole.
    """

    period: str
    is_over: bool
    months: Mapping[str, int]
    closed: Collection[str]
    stood_at_us: int | None = None
    drawn: Mapping[str, Sums] = {}


def commitment_of(row: Commitment, currency: str) -> billing.Commitment:
    """As billing has it."""
    return billing.Commitment(
        id=row.id,
        amount_picos=billing.check(row.amount, currency),
        term=msgspec.convert(row.term, billing.TermKind),
        first=date.fromisoformat(row.first_day),
        last=None if row.last_day is None else date.fromisoformat(row.last_day),
        prepaid=row.prepaid,
        overage_e4=billing.parse_overage(row.overage_percent),
        rollover_e4=billing.parse_share(row.rollover_percent),
    )


def agreed(connection: Connection, tenant: Tenant) -> list[billing.Commitment]:
    """What is approved, in the order of first days."""
    found = RECORDS.all(connection, tenant_id=tenant.id, state="approved")
    made = [commitment_of(row, tenant.currency) for row in found]
    return sorted(made, key=lambda each: (each.first, each.id))


def terms_of(connection: Connection, tenant: Tenant, until: date) -> list[Term]:
    """Those that begin by the day, in their order."""
    return billing.terms(agreed(connection, tenant), until, tenant.currency)


def terms_for(connection: Connection, tenant: Tenant, period: str) -> list[Term]:
    """Those that the invoice of the month may draw on, and the one after, to which rests roll."""
    return terms_of(connection, tenant, _after(period))


def months_of(terms: Iterable[Term]) -> frozenset[str]:
    return frozenset(month for term in terms for month in term.months())


def standings(
    connection: Connection, tenant: Tenant, terms: Sequence[Term], drafting: Drafting
) -> list[Standing]:
    """As issued invoices left them, those of `terms_for` that usage of the drafted months may draw
    on, and the one before.
    """
    found = [
        (term, following)
        for term, following in pairwise([*terms, None])
        if term is not None and _concerns(term, following, drafting)
    ]
    kept = sums(connection, tenant.id, [term.key for term, _ in found], drafting.stood_at_us)
    zone, none = ZoneInfo(tenant.timezone), Sums()
    both = {
        term.key: kept.get(term.key, none) + drafting.drawn.get(term.key, none) for term, _ in found
    }
    return [_standing(term, following, drafting, zone, both[term.key]) for term, following in found]


def _concerns(term: Term, following: Term | None, drafting: Drafting) -> bool:
    own = term.months()
    if own[0] > drafting.period:
        return False
    if _after(own[-1]).isoformat().startswith(drafting.period):
        return True  # its rest may have nothing to roll over to any more
    return not drafting.months.keys().isdisjoint({*own, *_carry(term, following)})


def _after(period: str) -> date:
    """The first day of the next month."""
    year, month = (int(part) for part in period.split("-"))
    return (date(year, month, 1) + _ONE_MONTH).replace(day=1)


def sums(
    connection: Connection, tenant_id: str, keys: Collection[str], stood_at_us: int | None = None
) -> dict[str, Sums]:
    """By the key of the term, what invoices have of it which stand, or stood then. Nothing of what
    none has.
    """
    if not keys:
        return {}
    of, dialect = invoice_lines.c, connection.dialect.name
    query = (
        select(
            of.commitment,
            of.line_kind,
            *exact_sum(dialect, of.amount_picos),
            *exact_sum(dialect, of.commitment_picos),
        )
        .join(invoices, invoices.c.id == of.invoice_id)
        .where(invoices.c.tenant_id == tenant_id, stood(stood_at_us))
        .where(of.commitment.in_(keys))
        .group_by(of.commitment, of.line_kind)
    )
    found: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for key, kind, high, low, part_high, part_low in connection.execute(query):
        if kind in AMOUNTS:
            found[key][AMOUNTS[kind]] += whole(high, low)
        if kind in PARTS:
            found[key][PARTS[kind]] += whole(part_high, part_low)
    return {key: Sums(**each) for key, each in found.items()}


def _standing(
    term: Term, following: Term | None, drafting: Drafting, zone: ZoneInfo, kept: Sums
) -> Standing:
    own = term.months()
    carry = _carry(term, following)
    last = own[-1]
    settled = last in drafting.closed
    if carry and carry[-1] in drafting.closed and not settled:
        carry = ()  # the next term was invoiced first: nothing is left to roll over to
    over = settled and (not carry or carry[-1] in drafting.closed)
    ends_with = carry[-1] if carry else None
    return Standing(
        key=term.key,
        span=days(term.first, term.last, zone),
        committed_picos=term.committed_picos,
        rollover_picos=term.rollover_picos if carry else 0,
        prepaid=term.commitment.prepaid,
        overage_e4=term.commitment.overage_e4,
        own=_begin(own, drafting.months),
        carry=_begin(carry, drafting.months),
        begun=drafting.period in own,
        ends=drafting.period == last and drafting.is_over and not settled,
        settled=settled,
        over=over,
        carry_ends=settled and drafting.period == ends_with and drafting.is_over,
        sums=kept,
    )


def _carry(term: Term, following: Term | None) -> tuple[str, ...]:
    """The months of the next term in which the rest may be used: none without a rest, or a gap."""
    if not term.rollover_picos or following is None or following.first != term.last + _DAY:
        return ()
    own = term.months()
    return tuple(month for month in following.months() if month not in own)


def _begin(periods: Collection[str], months: Mapping[str, int]) -> frozenset[int]:
    return frozenset(months[each] for each in periods if each in months)
