"""Attempts become usage events: what is billed, by whose figures, at the prices frozen at
admission.
"""

from msgspec.structs import replace

from billing.meters import Meters
from billing.money import counter_units
from billing.prices import card_for
from billing.rating import rate
from billing.usage import UsageEvent
from gateway.dataplane.bands import dearest
from gateway.dataplane.figures import Figures
from gateway.dataplane.flow import Attempt, Flow
from gateway.dataplane.service_tiers import PLAIN, expected_in, on_tier
from gateway.dataplane.ways import Way
from policies.candidates import Candidate


def template(flow: Flow) -> UsageEvent:
    """What a dead worker's hold is billed from: the first attempt of the plan at its worst case."""
    quote, route, plan = flow.quote, flow.route, flow.plan
    if quote is None or route is None or plan is None:
        raise RuntimeError("a hold before the quote")
    first = plan.attempts[0]
    way = route.ways[(first.backend_id, first.upstream_model)]
    worst = Meters(input=quote.input_bound, output=quote.wanted * quote.choices)
    expected = _expected(flow, 0, way, worst)
    if way.charge_bands:
        expected = replace(expected, charge_card=dearest(way.charge_bands, worst))
    if way.cost_bands:
        expected = replace(expected, cost_card=dearest(way.cost_bands, worst))
    return expected_in(expected, way, route.tier, worst) if route.tier else expected


def event(flow: Flow, attempt: Attempt, figures: Figures) -> UsageEvent:
    """One row of the ledger. Only the winning attempt is charged; every attempt costs us (L5)."""
    way, number = attempt.way, attempt.number
    expected = flow.template
    if number or expected is None or not _is_at(expected, way.candidate):
        expected = _expected(flow, number, way, figures.usage)
    began, granted = attempt.started_us, flow.granted
    finished = attempt.finished_us or began
    rated, tier = _rated(expected, attempt, figures), flow.route.tier if flow.route else ""
    if tier or attempt.told_tier not in PLAIN:
        rated = on_tier(rated, way, tier, attempt.told_tier)
    return replace(
        rated,
        # By the store's clock, which chose the hold's windows, however wrong ours is (L9).
        admitted_at_us=granted.now_ms * 1000 if granted is not None else expected.admitted_at_us,
        finished_at_us=finished,
        ttft_us=attempt.content_us - began if attempt.content_us else -1,
        duration_us=finished - began,
        status=flow.status,
        end_by=flow.end_by,
        end_phase=flow.end_phase,
    )


def _is_at(expected: UsageEvent, place: Candidate) -> bool:
    """The first to be asked is not the plan's first where that one had no room."""
    return (
        expected.backend_id == place.backend_id and expected.upstream_model == place.upstream_model
    )


def _rated(expected: UsageEvent, attempt: Attempt, figures: Figures) -> UsageEvent:
    """With what it used, and what that comes to."""
    way, usage, reported = attempt.way, figures.usage, attempt.reported
    if way.charge_tariff is None:
        raise RuntimeError("an attempt that was never admitted")
    tariff = way.cost_tariff
    if tariff is not None and tariff.output is None and usage.output:
        tariff = None  # a cost nobody knows is not a cost of nothing
    charge = way.charge_tariff.of(usage) if attempt.won else 0
    rated = replace(
        expected,
        winner=attempt.won,
        usage=usage,
        provenance=figures.provenance,
        reported=reported.meters if reported is not None else None,
        counted=figures.counted,
        reasoning=reported.reasoning if reported is not None else 0,
        cost_card=way.cost if tariff is not None else None,
        charge_picos=charge,
        cost_picos=tariff.of(usage) if tariff is not None else 0,
        counter_nanos=counter_units(charge, expected.currency) if charge else 0,
    )
    return _by_size(rated, way) if way.charge_bands or way.cost_bands else rated


def _by_size(rated: UsageEvent, way: Way) -> UsageEvent:
    """On the cards for a prompt of the size that was counted."""
    usage, cost_card = rated.usage, rated.cost_card
    if way.charge_bands:
        card = card_for(way.charge_bands, usage.all_input)
        charge = rate(usage, card) if rated.winner else 0
        units = counter_units(charge, rated.currency)
        rated = replace(rated, charge_card=card, charge_picos=charge, counter_nanos=units)
    if way.cost_bands and cost_card is not None:
        cost_card = card_for(way.cost_bands, usage.all_input)
        rated = replace(rated, cost_card=cost_card, cost_picos=rate(usage, cost_card))
    return rated


def _expected(flow: Flow, number: int, way: Way, usage: Meters) -> UsageEvent:
    """An attempt before anything is known of it. Not rated: whoever needs it rates what he then
    knows of the usage.

    No call here names more than fourteen fields: beyond that the interpreter packs them into a
    dictionary first, which costs more than all the rest.
    """
    ask, began, principal = flow.ask, flow.admit_started_us, flow.principal
    if ask is None or way.expected is None or principal is None:
        raise RuntimeError("an attempt that was never admitted")
    request_id, common = flow.arrival.request_id, way.expected
    if principal.end_users is not None:
        common = replace(common, end_user=principal.end_users.of(flow.fields))
    if flow.shadow_of:
        common = replace(common, shadow_of=flow.shadow_of)
    return replace(
        common,
        event_id=f"{request_id}:{number}",
        request_id=request_id,
        attempt=number,
        operation=ask.operation,
        stream=ask.stream,
        admitted_at_us=began,
        finished_at_us=began,
        usage=usage,
        status=flow.status,
        end_by=flow.end_by,
        end_phase=flow.end_phase,
        tags=flow.tags,
        decision=flow.decision,
    )
