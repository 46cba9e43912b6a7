"""What the request may cost: the plan's worst case, per input bound and per token of output."""

import msgspec

from billing.holds import WorstCase, worst_case_at
from gateway.dataplane.count import Size
from gateway.dataplane.envelope import EMBEDDINGS, MAX_TOKENS, Envelope
from gateway.dataplane.snapshot import Route
from policies.ask import Ask
from policies.budgets import MAX_CHOICES, MAX_COUNTER, MAX_UNIT_PRICE
from policies.decision import Deny, DenyCode
from policies.route import Plan


class Quote(msgspec.Struct, frozen=True, gc=False):
    """The hold's terms. Money in counter units of the tenant's currency."""

    worst: WorstCase
    input_bound: int
    wanted: int  # output tokens per choice that the client could use
    first: int  # those held at admission: all of them, or the first slice
    least: int  # fewer are of no use to it: refuse rather than clamp below
    choices: int
    most: int = MAX_COUNTER  # counter units that can be counted, and kept in the ledger


def ask_of(
    envelope: Envelope, operation: str, needs: frozenset[str], size: Size, route: Route
) -> Ask | Deny:
    """The request in the terms of policies."""
    if size.bound is None:
        return Deny(
            DenyCode.INVALID_REQUEST,
            "the request refers to content whose size cannot be known here (a file, an image by"
            " URL) and the model has no context window configured; send the content inline",
            param="messages",
        )
    wanted, choices = _wanted(envelope, operation, route), _choices(envelope, operation)
    if operation != EMBEDDINGS:
        choices *= size.prompts
    if choices > MAX_CHOICES or wanted * choices > MAX_TOKENS:
        return Deny(
            DenyCode.INVALID_REQUEST,
            f"{choices} answers of up to {wanted} tokens are more than one request may ask for",
            param="n",
        )
    return Ask(
        model=route.model.name,
        operation=operation,
        capabilities=needs,
        stream=bool(envelope.stream),
        input_bound=size.bound,
        input_estimate=size.estimate,
        output_wanted=wanted,
        choices=choices,
        prompts=size.prompts,
    )


def quote(ask: Ask, plan: Plan, route: Route, currency: str, *, in_slices: bool) -> Quote:
    """The worst case over every attempt of the plan, so that no failover can outgrow the hold."""
    policy = route.policy
    first = wanted = ask.output_wanted
    if in_slices:
        first = min(wanted, max(policy.slice, policy.least_output))
    input_picos = output_picos = 0
    for candidate in plan.attempts:
        if (picos := candidate.charge_input_picos or 0) > input_picos:
            input_picos = picos
        if (picos := candidate.charge_output_picos or 0) > output_picos:
            output_picos = picos
    return Quote(
        worst=worst_case_at(ask.input_bound, input_picos, output_picos, currency),
        input_bound=ask.input_bound,
        wanted=wanted,
        first=first,
        least=policy.least_output if policy.clamp and policy.least_output < first else first,
        choices=ask.choices,
        most=route.most,
    )


def beyond_counting(quote: Quote) -> Deny | None:
    """Refuses what may cost more than the scripts' numbers are exact for, or a row of the ledger
    has room for.
    """
    worst = quote.worst
    dearest, most = worst.output_nanos_per_token, quote.most
    if dearest <= MAX_UNIT_PRICE and worst.total(quote.choices * quote.wanted) <= most:
        return None
    counts = "any budget can count" if most == MAX_COUNTER else "this ledger has room for (SQLite)"
    return Deny(
        DenyCode.COST_CEILING_EXCEEDED,
        f"this request may cost millions, more than {counts}; ask for fewer output"
        " tokens, or have the model's price corrected",
    )


def _wanted(envelope: Envelope, operation: str, route: Route) -> int:
    if operation == EMBEDDINGS:
        return 0
    wanted = envelope.max_output
    if wanted is None:
        wanted = route.policy.default_output
    for most in (route.model.max_output_tokens, route.model.context_window):
        if most is not None and most < wanted:
            wanted = most
    return wanted


def _choices(envelope: Envelope, operation: str) -> int:
    if operation == EMBEDDINGS:
        return 1
    choices, best_of = envelope.n or 1, envelope.best_of or 1
    return choices if choices > best_of else best_of
