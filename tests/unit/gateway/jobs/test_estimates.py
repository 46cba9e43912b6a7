"""An estimate is an upper figure, the same every time, and charged to one attempt only."""

from billing.meters import Meters, Provenance
from billing.rating import rate
from billing.usage import UsageEvent
from gateway.jobs.estimates import Place, estimates, without_evidence
from gateway.stores.spool import Checkpoint, Dispatch
from gateway.stores.spooled import OpenRequest
from tests.ledger_events import CHARGE, COST, NOON_US, an_event

TEMPLATE = an_event("req_1", attempt=0, usage=Meters(input=900, output=400), tags={"app": "desk"})


def test_without_delivery_only_the_input_is_charged() -> None:
    (event,) = _estimates(_dispatch(1))

    assert event.usage == Meters(input=900)
    assert event.charge_picos == rate(event.usage, CHARGE)
    assert event.cost_picos == rate(event.usage, COST)
    assert (event.event_id, event.provenance) == ("req_1:1", Provenance.ESTIMATED)
    assert (event.hold, event.end_by, event.ttft_us) == ("estimated", "gateway", -1)
    assert (event.reported, event.counted) == (None, None)
    assert event.tags == {"app": "desk"}


def test_without_evidence_the_input_is_charged_to_an_attempt_nobody_knows() -> None:
    event = without_evidence(TEMPLATE)

    assert (event.event_id, event.attempt, event.winner) == ("req_1:-1", -1, True)
    assert event.usage == Meters(input=900)
    assert event.charge_picos == rate(event.usage, CHARGE)
    assert (event.hold, event.admitted_at_us) == ("estimated", NOON_US)


def test_output_that_was_seen_is_charged_but_never_more_than_was_granted() -> None:
    (seen,) = _estimates(_dispatch(1), checkpoints=(Checkpoint("req_1", 1, 70, NOON_US + 5),))
    (wild,) = _estimates(_dispatch(1), checkpoints=(Checkpoint("req_1", 1, 9_999, NOON_US + 5),))

    assert seen.usage == Meters(input=900, output=70)
    assert wild.usage == Meters(input=900, output=400)


def test_only_the_last_attempt_is_charged_and_none_where_another_answered() -> None:
    lost, last = _estimates(_dispatch(1), _dispatch(2))
    unlucky = _estimates(_dispatch(1), answered=True)

    assert [each.winner for each in (lost, last, *unlucky)] == [False, True, False]
    assert [each.charge_picos for each in (lost, *unlucky)] == [0, 0]
    assert lost.cost_picos > 0


def test_of_two_side_by_side_the_one_that_was_relayed_is_charged() -> None:
    relayed = (Checkpoint("req_1", 1, 0, NOON_US + 5),)
    won, lost = _estimates(_dispatch(1), _dispatch(2), checkpoints=relayed)

    assert (won.event_id, won.winner, lost.winner) == ("req_1:1", True, False)
    assert (won.charge_picos > 0, lost.charge_picos, lost.cost_picos > 0) == (True, 0, True)


def test_another_backend_is_named_and_its_unknown_price_is_not_made_up() -> None:
    places = {"backend_us": Place("us-east-1", "other")}
    (event,) = _estimates(_dispatch(1, "backend_us"), places=places)

    assert (event.backend_id, event.region) == ("backend_us", "us-east-1")
    assert (event.upstream_model, event.cost_card, event.cost_picos) == ("other", None, 0)


def test_the_same_evidence_gives_the_same_event() -> None:
    assert _estimates(_dispatch(1), _dispatch(2)) == _estimates(_dispatch(1), _dispatch(2))


def _dispatch(attempt: int, backend_id: str = "backend_eu") -> Dispatch:
    return Dispatch("req_1", attempt, backend_id, NOON_US + attempt)


def _estimates(
    *dispatches: Dispatch,
    checkpoints: tuple[Checkpoint, ...] = (),
    answered: bool = False,
    places: dict[str, Place] | None = None,
) -> list[UsageEvent]:
    request = OpenRequest("req_1", None, dispatches, checkpoints)
    return estimates(TEMPLATE, request, answered=answered, places=places or {})
