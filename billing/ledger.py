"""Double entry: what an attempt earned and cost, what was billed of it, credited and voided.

The postings of one entry and kind add up to zero in every currency. Accounts are named by what they
hold; debit is positive:

    receivable/TENANT/TEAM   what teams were charged and is on no invoice yet
    due/TENANT               what is invoiced, in the invoice's currency and whole minor units
    revenue/TENANT           charges, and what invoices have besides: minimums, discounts
    rounding/TENANT          between exact lines and the invoice's total
    credits/TENANT           what credit notes took back
    prepaid/TENANT           what was paid for usage to come: commitments, until used or expired
    conversion/TENANT/CUR    between the ledger's currency and the invoice's
    cost_of_service/TENANT/TEAM, provider/BACKEND   what serving cost, and to whom
    idle/BACKEND             what a box of our own cost beyond its tokens, and nobody bears
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import msgspec

from billing.money import minor_picos
from billing.usage import UsageEvent


class Posting(msgspec.Struct, frozen=True):
    """One side of a transaction. Fields are named as the table's columns."""

    event_id: str  # or the invoice's id
    kind: str  # charge | cost | idle | invoice | credit_note | void
    account: str
    tenant_id: str
    amount_picos: int  # debit positive, credit negative
    currency: str
    at_us: int  # when it takes effect: the admission, which decides the period


def postings(event: UsageEvent) -> tuple[Posting, ...]:
    """Two postings a kind, adding up to zero; none for a kind that comes to nothing.

    `charge`: the team owes (receivable), the tenant's revenue grows. `cost`: serving the team cost
    something, which we owe to the provider. Attempts that did not win carry no charge, only cost.
    """
    cost_currency = event.currency if event.cost_card is None else event.cost_card.currency
    return (
        *charge_pair(
            event.event_id,
            event.tenant_id,
            event.team_path[-1],
            event.charge_picos,
            event.currency,
            event.admitted_at_us,
        ),
        *cost_pair(
            event.event_id,
            event.tenant_id,
            event.team_path[-1],
            event.backend_id,
            event.cost_picos,
            cost_currency,
            event.admitted_at_us,
        ),
    )


def charge_pair(
    event_id: str, tenant_id: str, team_id: str, picos: int, currency: str, at_us: int
) -> tuple[Posting, ...]:
    debit, credit = f"receivable/{tenant_id}/{team_id}", f"revenue/{tenant_id}"
    return _pair(event_id, "charge", debit, credit, tenant_id, picos, currency, at_us)


def cost_pair(
    event_id: str,
    tenant_id: str,
    team_id: str,
    backend_id: str,
    picos: int,
    currency: str,
    at_us: int,
) -> tuple[Posting, ...]:
    debit, credit = f"cost_of_service/{tenant_id}/{team_id}", f"provider/{backend_id}"
    return _pair(event_id, "cost", debit, credit, tenant_id, picos, currency, at_us)


class Part(msgspec.Struct, frozen=True, array_like=True):
    """What of a box's idle cost somebody bears: a team, or with two empty words the platform."""

    tenant_id: str
    team_id: str
    picos: int


def idle_postings(
    booking_id: str, backend_id: str, parts: Iterable[Part], currency: str, at_us: int
) -> tuple[Posting, ...]:
    """What a box cost beyond its tokens: on its own account, or borne by teams. An entry for the
    platform and one for each tenant, `{booking}:{tenant}`; each adds up to nothing.
    """
    provider = f"provider/{backend_id}"
    amounts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for part in parts:
        team = f"cost_of_service/{part.tenant_id}/{part.team_id}"
        account = team if part.tenant_id else f"idle/{backend_id}"
        amounts[part.tenant_id][account] += part.picos
        amounts[part.tenant_id][provider] -= part.picos
    return tuple(
        Posting(
            f"{booking_id}:{tenant_id}" if tenant_id else booking_id,
            *("idle", account, tenant_id, picos, currency, at_us),
        )
        for tenant_id, accounts in sorted(amounts.items())
        for account, picos in sorted(accounts.items())
        if picos
    )


class Billed(msgspec.Struct, frozen=True, kw_only=True):
    """An invoice or credit note at its issue. `used`: by team, what it took of the charges that
    were on no invoice, in the ledger's currency; `lines_picos` is the sum of its lines in that
    currency, `rounding_picos` what of it is the rounding line.
    """

    id: str
    tenant_id: str
    currency: str
    total_minor: int
    ledger_currency: str
    used: Mapping[str, int]
    lines_picos: int
    rounding_picos: int
    at_us: int
    deferred_picos: int = 0  # what of the lines pays for usage to come, less what paid for this


def invoice_postings(billed: Billed) -> tuple[Posting, ...]:
    """What was charged becomes due. Whatever the lines come to beyond the charges is revenue, or
    takes from it. With an exchange each currency adds up to zero by itself.
    """
    tenant = billed.tenant_id
    total = minor_picos(billed.total_minor, billed.currency)
    used = sum(billed.used.values())
    amounts = {(f"due/{tenant}", billed.currency): total}
    of, home = f"conversion/{tenant}/", billed.ledger_currency
    rounding = 0
    if billed.currency == home:
        rounding = billed.rounding_picos
        earned = total - used - rounding - billed.deferred_picos
    else:
        earned = billed.lines_picos - billed.rounding_picos - used - billed.deferred_picos
        amounts[of + billed.currency, billed.currency] = -total
        amounts[of + home, home] = used + earned + billed.deferred_picos
    for team_id, picos in billed.used.items():
        amounts[f"receivable/{tenant}/{team_id}", home] = -picos
    amounts[f"revenue/{tenant}", home] = -earned
    amounts[f"rounding/{tenant}", home] = -rounding
    amounts[f"prepaid/{tenant}", home] = -billed.deferred_picos
    return _entry(billed.id, "invoice", tenant, amounts, billed.at_us)


def credit_postings(billed: Billed) -> tuple[Posting, ...]:
    """A note's total is negative: less is due."""
    total = minor_picos(billed.total_minor, billed.currency)
    due, credits_ = f"due/{billed.tenant_id}", f"credits/{billed.tenant_id}"
    amounts = {(due, billed.currency): total, (credits_, billed.currency): -total}
    return _entry(billed.id, "credit_note", billed.tenant_id, amounts, billed.at_us)


def void_postings(entry: Iterable[Posting], at_us: int) -> tuple[Posting, ...]:
    """The entry of an invoice or credit note taken back as a whole."""
    return tuple(
        msgspec.structs.replace(each, kind="void", amount_picos=-each.amount_picos, at_us=at_us)
        for each in sorted(entry, key=lambda each: each.account)
    )


def _entry(
    entry_id: str, kind: str, tenant_id: str, amounts: Mapping[tuple[str, str], int], at_us: int
) -> tuple[Posting, ...]:
    return tuple(
        Posting(entry_id, kind, account, tenant_id, picos, currency, at_us)
        for (account, currency), picos in sorted(amounts.items())
        if picos
    )


def _pair(
    event_id: str,
    kind: str,
    debit: str,
    credit: str,
    tenant_id: str,
    picos: int,
    currency: str,
    at_us: int,
) -> tuple[Posting, ...]:
    if picos == 0:
        return ()
    return (
        Posting(event_id, kind, debit, tenant_id, picos, currency, at_us),
        Posting(event_id, kind, credit, tenant_id, -picos, currency, at_us),
    )
