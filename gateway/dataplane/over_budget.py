"""What a client is told where a budget, a day's tokens or a team's hour cannot pay for it."""

from typing import Final

from billing.money import format_counter
from gateway import clock
from gateway.dataplane.flow import Flow
from gateway.dataplane.levels import HOUR, Meter
from gateway.stores.redis.holds import MONEY, Refused
from policies.accounts import Account
from policies.decision import Deny, DenyCode

# How long requests take to end is nobody's to know; the window's end is too far.
_HELD_RETRY_MS: Final = 2_000
_ASK_THE_OWNER: Final = "ask the budget's owner for more"


def used_up(flow: Flow, blocked: int, used: int) -> Deny:
    """Why an answer was cut after `used` tokens: the account at `blocked` paid no more."""
    standing = flow.standing
    if standing is None:
        raise RuntimeError("a refusal without levels")
    if blocked >= len(standing.meters):
        return Deny(
            DenyCode.INSUFFICIENT_QUOTA,
            f"a budget that was set while the answer came is used up: the answer was cut after"
            f" {used} output tokens; {_ASK_THE_OWNER}",
        )
    meter, account = standing.meters[blocked], standing.accounts[blocked]
    if meter.unit != MONEY:
        return Deny(
            DenyCode.RATE_LIMIT_EXCEEDED,
            f"{meter.label} has used its {account.cap} {meter.period}: the answer was cut after"
            f" {used} output tokens; ask again when the day is over",
        )
    what, remedy = f"the {meter.period} budget of {meter.label}", _ASK_THE_OWNER
    if meter.period == HOUR:
        what = f"what policy {meter.policies} lets {meter.label} spend in an hour"
        remedy = f"ask again after {_end_of(account)}"
    return Deny(
        DenyCode.INSUFFICIENT_QUOTA,
        f"{what} is used up: the answer was cut after {used} output tokens; {remedy}",
    )


def over_budget(flow: Flow, refused: Refused) -> Deny:
    """Why nothing was begun. With a time to wait where waiting is enough."""
    quote, principal, standing = flow.quote, flow.principal, flow.standing
    if quote is None or principal is None or standing is None:
        raise RuntimeError("a refusal without a quote")
    meter, account = standing.meters[refused.index], standing.accounts[refused.index]
    if meter.unit != MONEY:
        return _over_tokens(flow, meter, account, refused)
    least = quote.worst.total(quote.least * quote.choices)
    currency, room = principal.tenant.currency, max(0, refused.available)
    cost = f"{format_counter(least, currency)} {currency}"
    remedy = "lower max_tokens" if room else "shorten the prompt, choose a cheaper model"
    if refused.unheld:
        remedy = f"requests under way hold what it needs: retry when they have ended, {remedy}"
    if meter.period == HOUR:
        return _over_hour(flow, refused, cost, remedy, least)
    if refused.left <= 0 and not refused.unheld:
        return Deny(
            DenyCode.INSUFFICIENT_QUOTA,
            f"the {meter.period} budget of {meter.label} is spent; {_ASK_THE_OWNER}"
            + ("" if meter.period == "total" else f", or wait until {_end_of(account)}"),
        )
    return Deny(
        DenyCode.INSUFFICIENT_QUOTA,
        f"the {meter.period} budget of {meter.label} cannot cover this request: it may cost"
        f" {cost}, {format_counter(max(0, refused.left), currency)} {currency} is left and room for"
        f" {room} output tokens; {remedy}, or {_ASK_THE_OWNER}",
        retry_after_ms=_HELD_RETRY_MS if refused.unheld else None,
    )


def _over_tokens(flow: Flow, meter: Meter, account: Account, refused: Refused) -> Deny:
    quote, ask = flow.quote, flow.ask
    if quote is None or ask is None:
        raise RuntimeError("a refusal without a quote")
    needed = ask.input_estimate + quote.least * quote.choices
    ever = needed <= account.cap
    return Deny(
        DenyCode.RATE_LIMIT_EXCEEDED,
        f"{meter.label} has {account.cap} {meter.period}, and this request needs about {needed}"
        + ("; that many are not left today" if ever else "; it can never fit: ask for less"),
        retry_after_ms=max(1, account.end_ms - refused.now_ms) if ever else None,
    )


def _over_hour(flow: Flow, refused: Refused, cost: str, remedy: str, least: int) -> Deny:
    """`least`: what it may cost at the least, in counter units; `cost`: the same in words."""
    principal, standing = flow.principal, flow.standing
    if principal is None or standing is None:
        raise RuntimeError("a refusal without levels")
    meter, account = standing.meters[refused.index], standing.accounts[refused.index]
    most = f"{format_counter(account.cap, principal.tenant.currency)} {principal.tenant.currency}"
    bound = f"policy {meter.policies} lets {meter.label} spend {most} an hour"
    if least > account.cap:
        return Deny(
            DenyCode.INSUFFICIENT_QUOTA,
            f"{bound}, and this request alone may cost {cost}: it never fits into an hour;"
            f" {remedy}",
        )
    return Deny(
        DenyCode.INSUFFICIENT_QUOTA,
        f"{bound}, and what is left of this hour cannot cover this request, which may cost {cost};"
        f" {remedy}, or wait until {_end_of(account)}",
        retry_after_ms=_until(account, refused),
    )


def _until(account: Account, refused: Refused) -> int:
    left_ms = max(1, account.end_ms - refused.now_ms)
    return min(left_ms, _HELD_RETRY_MS) if refused.unheld else left_ms


def _end_of(account: Account) -> str:
    return clock.rfc3339(account.end_ms * 1000)
