"""What a request is billed when its worker died: an upper figure, marked `estimated` (L10).

The hold carries a template: the usage event of the first planned attempt at its worst case. Without
delivery only the input is charged; output that a checkpoint saw is added. The same evidence always
gives the same events, so that booking them twice is booking them once.
"""

from collections.abc import Mapping

import msgspec

from billing.meters import Meters, Provenance
from billing.money import counter_units
from billing.rating import rate
from billing.usage import UNKNOWN_ATTEMPT, UsageEvent
from gateway.stores.spool import Dispatch
from gateway.stores.spooled import OpenRequest


class Place(msgspec.Struct, frozen=True):
    """What the configuration says of a backend that the template is not about."""

    region: str
    upstream_model: str


def estimates(
    template: UsageEvent,
    request: OpenRequest,
    *,
    answered: bool,
    places: Mapping[str, Place],
) -> list[UsageEvent]:
    """One event for every attempt that was dispatched and has no outcome. One of them is charged,
    unless another attempt has `answered` the client: the one with a checkpoint, for only what goes
    to the client has one, else the last. The others only cost us.
    """
    seen = {each.attempt: each for each in request.checkpoints}
    relayed = [each for each in request.unanswered if each.attempt in seen]
    likely = [] if answered else relayed or request.unanswered
    events = []
    for dispatch in request.unanswered:
        wins = dispatch in likely[-1:]
        checkpoint = seen.get(dispatch.attempt)
        output = checkpoint.output_tokens if checkpoint is not None else 0
        ended_us = dispatch.at_us if checkpoint is None else checkpoint.at_us
        usage = Meters(input=template.usage.all_input, output=min(output, template.usage.output))
        events.append(_event(template, dispatch, usage, wins, ended_us, places))
    return events


def without_evidence(template: UsageEvent) -> UsageEvent:
    """The input, for a hold of which nobody can tell whether it reached a backend."""
    dispatch = Dispatch(
        template.request_id, UNKNOWN_ATTEMPT, template.backend_id, template.admitted_at_us
    )
    usage = Meters(input=template.usage.all_input)
    return _event(template, dispatch, usage, True, template.admitted_at_us, {})


def _event(
    template: UsageEvent,
    dispatch: Dispatch,
    usage: Meters,
    wins: bool,
    ended_us: int,
    places: Mapping[str, Place],
) -> UsageEvent:
    same = dispatch.backend_id == template.backend_id
    place = places.get(dispatch.backend_id) or Place(template.region, template.upstream_model)
    cost_card = template.cost_card if same else None
    charge_picos = rate(usage, template.charge_card) if wins else 0
    return msgspec.structs.replace(
        template,
        event_id=f"{template.request_id}:{dispatch.attempt}",
        attempt=dispatch.attempt,
        winner=wins,
        backend_id=dispatch.backend_id,
        upstream_model=template.upstream_model if same else place.upstream_model,
        region=template.region if same else place.region,
        finished_at_us=max(ended_us, dispatch.at_us),
        ttft_us=-1,
        duration_us=max(0, ended_us - dispatch.at_us),
        usage=usage,
        provenance=Provenance.ESTIMATED,
        reported=None,
        counted=None,
        reasoning=0,
        cost_card=cost_card,
        charge_picos=charge_picos,
        cost_picos=rate(usage, cost_card) if cost_card is not None else 0,
        counter_nanos=counter_units(charge_picos, template.currency) if charge_picos else 0,
        status=0,
        end_by="gateway",
        end_phase="stream" if usage.output else "ttfb",
        hold="estimated",
    )
