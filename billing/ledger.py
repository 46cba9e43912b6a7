"""Double entry: what an attempt earned and what it cost, as postings that add up to zero."""

import msgspec

from billing.usage import UsageEvent


class Posting(msgspec.Struct, frozen=True):
    """One side of a transaction. Fields are named as the table's columns."""

    event_id: str
    kind: str  # charge | cost
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
    team_id = event.team_path[-1]
    cost_currency = event.currency if event.cost_card is None else event.cost_card.currency
    return (
        *_pair(
            event,
            "charge",
            debit=f"receivable/{event.tenant_id}/{team_id}",
            credit=f"revenue/{event.tenant_id}",
            picos=event.charge_picos,
            currency=event.currency,
        ),
        *_pair(
            event,
            "cost",
            debit=f"cost_of_service/{event.tenant_id}/{team_id}",
            credit=f"provider/{event.backend_id}",
            picos=event.cost_picos,
            currency=cost_currency,
        ),
    )


def _pair(
    event: UsageEvent, kind: str, *, debit: str, credit: str, picos: int, currency: str
) -> tuple[Posting, ...]:
    if picos == 0:
        return ()
    return tuple(
        Posting(
            event_id=event.event_id,
            kind=kind,
            account=account,
            tenant_id=event.tenant_id,
            amount_picos=amount,
            currency=currency,
            at_us=event.admitted_at_us,
        )
        for account, amount in ((debit, picos), (credit, -picos))
    )
