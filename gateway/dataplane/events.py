"""Attempts become usage events: what is billed, by whose figures, at the prices frozen at
admission.
"""

from msgspec.structs import replace

from billing.meters import Meters, Provenance
from billing.money import counter_units
from billing.usage import VERSION, UsageEvent
from gateway.dataplane.figures import Figures
from gateway.dataplane.flow import Attempt, Flow
from gateway.dataplane.snapshot import Way


def template(flow: Flow) -> UsageEvent:
    """What a dead worker's hold is billed from: the first attempt of the plan at its worst case."""
    quote, route, plan = flow.quote, flow.route, flow.plan
    if quote is None or route is None or plan is None:
        raise RuntimeError("a hold before the quote")
    first = plan.attempts[0]
    way = route.ways[(first.backend_id, first.upstream_model)]
    worst = Meters(input=quote.input_bound, output=quote.wanted * quote.choices)
    return _expected(flow, 0, way, worst)


def event(flow: Flow, attempt: Attempt, figures: Figures) -> UsageEvent:
    """One row of the ledger. Only the winning attempt is charged; every attempt costs us (L5)."""
    way, usage, number = attempt.way, figures.usage, attempt.number
    expected = flow.template if number == 0 else _expected(flow, number, way, usage)
    if expected is None or way.charge_tariff is None:
        raise RuntimeError("an attempt that was never admitted")
    tariff = way.cost_tariff
    if tariff is not None and tariff.output is None and usage.output:
        tariff = None  # a cost nobody knows is not a cost of nothing
    charge = way.charge_tariff.of(usage) if attempt.won else 0
    began, reported, granted = attempt.started_us, attempt.reported, flow.granted
    finished = attempt.finished_us or began
    return replace(
        expected,
        winner=attempt.won,
        # By the store's clock, which chose the hold's windows, however wrong ours is (L9).
        admitted_at_us=granted.now_ms * 1000 if granted is not None else expected.admitted_at_us,
        finished_at_us=finished,
        ttft_us=attempt.content_us - began if attempt.content_us else -1,
        duration_us=finished - began,
        usage=usage,
        provenance=figures.provenance,
        reported=reported.meters if reported is not None else None,
        counted=figures.counted,
        reasoning=reported.reasoning if reported is not None else 0,
        cost_card=way.cost if tariff is not None else None,
        charge_picos=charge,
        cost_picos=tariff.of(usage) if tariff is not None else 0,
        counter_nanos=counter_units(charge, expected.currency) if charge else 0,
        status=flow.status,
        end_by=flow.end_by,
        end_phase=flow.end_phase,
    )


def _expected(flow: Flow, number: int, way: Way, usage: Meters) -> UsageEvent:
    """An attempt before anything is known of it. Not rated: whoever needs it rates what he then
    knows of the usage.
    """
    principal, ask, began = flow.principal, flow.ask, flow.admit_started_us
    if principal is None or ask is None or way.charge is None:
        raise RuntimeError("an attempt that was never admitted")
    request_id, candidate = flow.arrival.request_id, way.candidate
    return UsageEvent(
        v=VERSION,
        event_id=f"{request_id}:{number}",
        request_id=request_id,
        attempt=number,
        winner=True,
        tenant_id=principal.tenant.id,
        team_path=principal.team_path,
        key_id=principal.key.id,
        model=ask.model,
        backend_id=candidate.backend_id,
        upstream_model=candidate.upstream_model,
        region=candidate.region,
        operation=ask.operation,
        stream=ask.stream,
        admitted_at_us=began,
        finished_at_us=began,
        ttft_us=-1,
        duration_us=0,
        usage=usage,
        provenance=Provenance.ESTIMATED,
        reported=None,
        counted=None,
        reasoning=0,
        currency=principal.tenant.currency,
        charge_card=way.charge,
        cost_card=way.cost,
        charge_picos=0,
        cost_picos=0,
        counter_nanos=0,
        status=flow.status,
        end_by=flow.end_by,
        end_phase=flow.end_phase,
        tags=flow.tags,
    )
