"""Which price, discount or commitment a document means, and how far one that is there may still
change.
"""

import operator
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from gateway.admin.tco import SOURCE
from gateway.clock import now_us, parse_rfc3339, rfc3339

Fields = dict[str, Any]

APPROVED: Final = "approved"
DATED: Final = ("price", "discount", "commitment")
_WESTMOST_US: Final = 12 * 3_600_000_000  # how far behind UTC a calendar is at most
_ELSEWHERE: Final = (False, True, True)  # a draft that has been approved since


class ImmutablePriceError(ValueError):
    """The document would change a price that is approved, or a discount or commitment that is in
    force.
    """


def same_price(found: Sequence[Fields], wanted: Fields, kept: set[str]) -> Fields | None:
    """Of those for one subject the one of the same date: rather one in the same state, and rather
    one of the same amount. Without a date the newest, if it says the same. Drafts may be many; one
    that another document means already is left to it.
    """
    if _date(wanted) is None:
        newest = max(found, key=_begins_us, default=None)
        return newest if newest is not None and all(_same(newest, wanted)) else None
    dated = [each for each in found if _date(each) == _date(wanted)]
    if wanted["state"] == APPROVED:
        able = [e for e in dated if e["state"] == APPROVED or e["id"] not in kept]
    else:
        able = [e for e in dated if e["id"] not in kept and (_same(e, wanted) >= _ELSEWHERE)]
    return max(able, key=lambda each: _same(each, wanted), default=None)


def imagined(body: Fields) -> Fields:
    """What the body would make, as far as documents after it look at it."""
    return body if _date(body) is not None else body | {"effective_from": rfc3339(now_us())}


def undated(kind: str, wanted: Fields) -> bool:
    """Whether it begins when it is applied: of such ones the last would be all that counts."""
    return kind in DATED and _date(wanted) is None and wanted.get("state") == APPROVED


def follows(price: Mapping[str, Any]) -> bool:
    """Whether it follows from a backend's `tco`: no document names it."""
    return str(price["source"]).startswith(f"{SOURCE} ")


def settled(now: Fields, wanted: Fields) -> Fields:
    """`wanted` with what it leaves open as it is now: the date, the spelling of the amount, and the
    approval that a price once drafted has got since.

    ImmutablePriceError when what is left of the change cannot be made.
    """
    wanted = dict(wanted)
    if _date(wanted) is None:
        wanted["effective_from"] = now["effective_from"]
    amount = _amount(now)
    if Decimal(wanted[amount]) == Decimal(now[amount]):
        wanted[amount] = now[amount]
    if now["state"] == APPROVED:
        wanted["state"] = APPROVED
        if wanted != now and (stays := _stays(now)) is not None:
            raise ImmutablePriceError(
                f"the {stays} and never changes; give the new one a later {_date_field(now)}"
            )
    return wanted


def _stays(approved: Fields) -> str | None:
    """What keeps it as it is. What is no price may change until it is in force."""
    since = _date(approved)
    match _amount(approved):
        case "amount":
            day = rfc3339(now_us() - _WESTMOST_US)[:10]  # in every zone; elsewhere the API says it
            return f"commitment is in force since {since}" if since <= day else None
        case "percent":
            begun = _begins_us(approved) <= now_us()
            return f"discount is in force since {since}" if begun else None
    return f"price from {since} on is approved"


def _date_field(view: Mapping[str, Any]) -> str:
    return "first_day" if "first_day" in view else "effective_from"


def _date(view: Mapping[str, Any]) -> Any:
    return view[_date_field(view)]


def _amount(view: Mapping[str, Any]) -> str:
    """The field that says how much."""
    names = ("percent", "amount", "amount_per_million")
    return next(name for name in names if name in view)


def _same(price: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[bool, ...]:
    """Whether state, currency and amount are, the weightiest first."""
    amounts = (Decimal(each[_amount(each)]) for each in (price, wanted))
    return (
        price["state"] == wanted["state"],
        price.get("currency") == wanted.get("currency"),
        operator.eq(*amounts),
    )


def _begins_us(price: Mapping[str, Any]) -> int:
    return parse_rfc3339(price["effective_from"])
