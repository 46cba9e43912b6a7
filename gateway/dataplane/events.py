"""Attempts become usage events: what is billed, by whose figures, at the prices frozen at
admission.
"""

from billing.meters import Meters, Provenance
from billing.money import counter_units
from billing.rating import Tariff
from billing.usage import VERSION, UsageEvent
from gateway.dataplane.figures import Figures
from gateway.dataplane.flow import Attempt, Flow


def template(flow: Flow) -> UsageEvent:
    """What a dead worker's hold is billed from: the first attempt of the plan at its worst case."""
    quote, route, plan = flow.quote, flow.route, flow.plan
    if quote is None or route is None or plan is None:
        raise RuntimeError("a hold before the quote")
    first = plan.attempts[0]
    way = route.ways[(first.backend_id, first.upstream_model)]
    worst = Meters(input=quote.input_bound, output=quote.wanted * quote.choices)
    attempt = Attempt(0, way, flow.admit_started_us, won=True)
    # Not rated: whoever needs it rates what he then knows of the usage.
    return _row(flow, attempt, Figures(worst, Provenance.ESTIMATED), 0, 0, way.cost_tariff)


def event(flow: Flow, attempt: Attempt, figures: Figures) -> UsageEvent:
    """One row of the ledger. Only the winning attempt is charged; every attempt costs us (L5)."""
    way, usage = attempt.way, figures.usage
    if way.charge_tariff is None:
        raise RuntimeError("an attempt that was never admitted")
    tariff = way.cost_tariff
    if tariff is not None and tariff.output is None and usage.output:
        tariff = None  # a cost nobody knows is not a cost of nothing
    charge = way.charge_tariff.of(usage) if attempt.won else 0
    cost = tariff.of(usage) if tariff is not None else 0
    return _row(flow, attempt, figures, charge, cost, tariff)


def _row(
    flow: Flow,
    attempt: Attempt,
    figures: Figures,
    charge: int,
    cost: int,
    tariff: Tariff | None,
) -> UsageEvent:
    principal, ask, way = flow.principal, flow.ask, attempt.way
    if principal is None or ask is None or way.charge is None:
        raise RuntimeError("an attempt that was never admitted")
    currency = principal.tenant.currency
    began = attempt.started_us
    finished = attempt.finished_us or began
    reported = attempt.reported
    return UsageEvent(
        v=VERSION,
        event_id=f"{flow.arrival.request_id}:{attempt.number}",
        request_id=flow.arrival.request_id,
        attempt=attempt.number,
        winner=attempt.won,
        tenant_id=principal.tenant.id,
        team_path=principal.team_path,
        key_id=principal.key.id,
        model=ask.model,
        backend_id=way.candidate.backend_id,
        upstream_model=way.candidate.upstream_model,
        region=way.candidate.region,
        operation=ask.operation,
        stream=ask.stream,
        admitted_at_us=flow.admit_started_us,
        finished_at_us=finished,
        ttft_us=attempt.content_us - began if attempt.content_us else -1,
        duration_us=finished - began,
        usage=figures.usage,
        provenance=figures.provenance,
        reported=reported.meters if reported is not None else None,
        counted=figures.counted,
        reasoning=reported.reasoning if reported is not None else 0,
        currency=currency,
        charge_card=way.charge,
        cost_card=way.cost if tariff is not None else None,
        charge_picos=charge,
        cost_picos=cost,
        counter_nanos=counter_units(charge, currency) if charge else 0,
        status=flow.status,
        end_by=flow.end_by,
        end_phase=flow.end_phase,
        tags=flow.tags,
    )
