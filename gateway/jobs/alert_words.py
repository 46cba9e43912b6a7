"""What an alert says: what happened, what to do, and where to look."""

from typing import Final, NamedTuple

from billing.alerts import Finding, Watched
from billing.money import format_counter
from gateway import clock
from gateway.stores.sql.rows import Budget

_PACES: Final = {"1h": "the last hour", "6h": "the last six hours", "3d": "the last three days"}


class Words(NamedTuple):
    message: str
    remedy: str
    link: str  # of the admin API


def words(finding: Finding, watched: Watched, budget: Budget, label: str, currency: str) -> Words:
    """`label` names what the budget is of. Everything that is to be done is an address or a
    command of ours.
    """

    def money(amount: int) -> str:
        return f"{format_counter(amount, currency)} {currency}"

    of = f"the {budget.period} budget of {label}"
    ends = "" if budget.period == "total" else f" until {_day(watched.end_us)}"
    grant = f"POST /admin/v1/budgets/{budget.id}/grants"
    spends = "see which key and model spends (link)"
    match finding.rule:
        case "threshold":
            message = (
                f"{finding.mark} % of {of} is spent: {money(watched.spent)} of {money(watched.cap)}"
            )
            remedy = f"{spends}; {grant} allows more for a time"
            if watched.hard and watched.spent >= watched.cap:
                remedy = f"requests are refused{ends}; {grant} lets them through; {spends}"
        case "burn_rate":
            span = _PACES[finding.mark.split()[0]]
            spent, plan = money(finding.amount), money(finding.expected)
            message = f"{of} goes fast: {spent} in {span}, planned were {plan}"
            remedy = (
                f"{spends}; end a runaway one with POST /admin/v1/keys/ID/revoke, or bound it with "
                "a limit or a budget of its own"
            )
        case _:
            sure = "will" if finding.mark == "likely" else "may"
            amount, cap = money(finding.amount), money(watched.cap)
            message = f"{of} of {cap} {sure} not last{ends}: {amount} are foreseen"
            remedy = (
                f"{spends}; agree on {grant}, or on a cheaper model (budget.on_exhausted) in time"
            )
    return Words(message, remedy, _link(watched, budget))


def _link(watched: Watched, budget: Budget) -> str:
    start, end = clock.rfc3339(watched.start_us), clock.rfc3339(min(watched.end_us, watched.at_us))
    scope = f"{budget.scope_kind}_id={budget.scope_id}"
    return f"/admin/v1/usage?from={start}&to={end}&group_by=key,model&{scope}"


def _day(at_us: int) -> str:
    return clock.rfc3339(at_us)
