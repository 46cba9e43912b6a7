"""Usage events for tests of the spool, the journal and who reads them."""

from billing.meters import Meters, Provenance
from billing.prices import RateCard
from billing.usage import ENCODER, VERSION, UsageEvent


def event(request_id: str, attempt: int) -> bytes:
    """One packed UsageEvent; only its identity matters."""
    return ENCODER.encode(
        UsageEvent(
            v=VERSION,
            event_id=f"{request_id}:{attempt}",
            request_id=request_id,
            attempt=attempt,
            winner=True,
            tenant_id="ten_1",
            team_path=("team_1",),
            key_id="key_1",
            model="chat",
            backend_id="be_1",
            upstream_model="chat",
            region="eu",
            operation="chat",
            stream=False,
            admitted_at_us=1,
            finished_at_us=2,
            ttft_us=-1,
            duration_us=1,
            usage=Meters(input=1),
            provenance=Provenance.REPORTED,
            reported=None,
            counted=None,
            reasoning=0,
            currency="USD",
            charge_card=RateCard("rc_1", "USD", ()),
            cost_card=None,
            charge_picos=0,
            cost_picos=0,
            counter_nanos=0,
            status=200,
            end_by="upstream",
            end_phase="done",
            tags={},
        )
    )
