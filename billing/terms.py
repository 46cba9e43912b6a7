"""What a tenant's invoices say of the two parties, and by which rules they are made."""

import calendar
from datetime import date

import msgspec

from billing.money import minor_picos, parse_picos, round_half_up


class Party(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """As it stands on the page. An empty name of whoever is billed: the tenant's."""

    name: str = ""
    address: tuple[str, ...] = ()
    tax_id: str = ""


class Terms(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All of it is optional. An issued invoice keeps the terms it was issued under."""

    issuer: Party = Party(name="Meterhouse")
    recipient: Party = Party()
    purchase_order: str = ""
    payment_days: int | None = None
    currency: str | None = None  # of the invoice; None: the tenant's, in which prices are
    tax: dict[str, str] | None = None  # printed as it is given; no tax is computed
    grace_days: int = 0  # how long after a month its usage may still come
    series: str = "INV"  # what numbers begin with
    four_eyes: bool = False  # whoever made a draft does not issue it
    minimum: str | None = None  # of a month, in the tenant's currency
    minimum_from: str | None = None  # 2026-10-16, a day of the tenant's calendar


class IssuedTerms(Terms, frozen=True, kw_only=True, omit_defaults=True):
    """With what the tenant was called, and where its days began."""

    tenant: str
    timezone: str


def minimum_picos(terms: Terms, period: str, currency: str) -> int:
    """What a month asks for at least: the agreed minimum by the days of the month from its first
    one, rounded once to a minor unit. 0 without one, or before it begins.
    """
    if terms.minimum is None:
        return 0
    year, month = (int(part) for part in period.split("-"))
    days = calendar.monthrange(year, month)[1]
    first = date.fromisoformat(terms.minimum_from) if terms.minimum_from else date.min
    due = days - max(0, (first - date(year, month, 1)).days)
    if due <= 0:
        return 0
    step = minor_picos(1, currency) * days
    whole, rest = divmod(parse_picos(terms.minimum) * due, step)
    return minor_picos(whole + (2 * rest >= step), currency)


def check(terms: Terms, currency: str) -> None:
    """ValueError for terms that no invoice can be made by. `currency` is the tenant's."""
    if terms.minimum is not None:
        picos = parse_picos(terms.minimum)
        if picos != minor_picos(round_half_up(picos, currency), currency):
            raise ValueError(f"a minimum of {terms.minimum} is finer than {currency} has units for")
    if terms.minimum_from is not None and terms.minimum is None:
        raise ValueError("minimum_from says from when, and there is no minimum")
