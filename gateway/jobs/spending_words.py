"""What an alert of no budget says: what was spent, what to do, and where to look."""

from billing.anomalies import Anomaly
from billing.loops import Loop
from billing.money import format_counter
from gateway import clock
from gateway.jobs.alert_words import Words
from gateway.stores.sql.rows import KeyBlock, LoopBreaker

_DAY_US = 86_400_000_000


def of_anomaly(
    found: Anomaly, kind: str, scope_id: str, label: str, currency: str, at_us: int
) -> Words:
    """`label` names who spent."""
    amount, expected = (
        format_counter(found.amount, currency),
        format_counter(found.expected, currency),
    )
    start, end = clock.rfc3339(at_us - _DAY_US), clock.rfc3339(at_us)
    end_it = f"POST /admin/v1/keys/{scope_id if kind == 'key' else 'ID'}/revoke"
    return Words(
        f"{label} has spent {amount} {currency} in 24 hours; {expected} {currency} are usual, by "
        f"{found.days} days of its own",
        "see which key and model it is (link); what is meant becomes the usual by itself; "
        f"else {end_it} ends it, POST /admin/v1/budgets or /admin/v1/loop-breakers bounds it",
        f"/admin/v1/usage?from={start}&to={end}&group_by=key,model,hour&{kind}_id={scope_id}",
    )


def of_loop(
    loop: Loop, breaker: LoopBreaker, label: str, currency: str, block: KeyBlock | None
) -> Words:
    """`label` names the key. `block`: how it is refused from now on; None: it goes on."""
    amount = format_counter(loop.amount, currency)
    message = (
        f"{label} is in a loop: {loop.requests} requests of one shape ({loop.shape}) cost {amount} "
        f"{currency} within a minute; {breaker.amount_per_minute} {currency} are allowed"
    )
    revoke = f"POST /admin/v1/keys/{loop.key_id}/revoke ends it for good"
    if block is None:
        remedy = (
            f"it goes on: find what repeats them (link); {revoke}; action block of "
            f"/admin/v1/loop-breakers/{breaker.id} refuses the next one"
        )
    else:
        remedy = (
            f"the key is refused until {clock.rfc3339(block.until_us)}: find what repeats them "
            f"(link) and stop it, then POST /admin/v1/key-blocks/{block.id}/lift; {revoke}"
        )
    start, end = clock.rfc3339(loop.start_us - _DAY_US // 24), clock.rfc3339(loop.end_us + 1)
    return Words(
        message, remedy, f"/admin/v1/usage/requests?from={start}&to={end}&key_id={loop.key_id}"
    )


def to_the_caller(loop: Loop, breaker: LoopBreaker, block_id: str, currency: str) -> str:
    """What a refused request reads, before until when."""
    return (
        f"this key is in a loop: {loop.requests} alike requests cost "
        f"{format_counter(loop.amount, currency)} {currency} within a minute, and "
        f"{breaker.amount_per_minute} {currency} are allowed; stop what repeats them, then ask "
        f"whoever runs this gateway to lift {block_id}"
    )
