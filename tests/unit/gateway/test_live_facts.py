"""What all workers see together, for whoever explains a decision."""

from typing import Any

from gateway.live_facts import merged, read
from gateway.stores.redis.workers import BackendReport, Report
from policies.latency import bucket_of
from tests.running import run

PLACE = ("bk_eu", "smol")


def _report(worker: str, at_us: int = 1, **seen: Any) -> Report:
    given: dict[str, Any] = {
        "backend_id": PLACE[0], "upstream_model": PLACE[1], "breaker": "closed", "in_flight": 0,
        "in_flight_tokens": 0, "ttft": {}, "tpot": {}, "total": {},
    }  # fmt: skip
    return Report(
        worker=worker,
        version="0",
        at_us=at_us,
        started_us=0,
        revision=1,
        in_flight=0,
        unsettled=0,
        backends=(BackendReport(**given | seen),),
    )


def test_counts_add_up_and_the_worker_that_thinks_worst_is_believed() -> None:
    quick, slow = bucket_of(100_000), bucket_of(300_000)

    facts = merged(
        [
            _report("a", 7, ttft={quick: 19}, in_flight=2, room=4, others={"ttft_p90_30s": None}),
            _report("b", 5, ttft={slow: 2}, in_flight=1, room=8, share=0, rest_ms=9, waiting=1,
                    breaker="open", others={"ttft_p90_30s": 70}, ttft_ewma_us=50),
        ]
    )  # fmt: skip

    assert facts.live is not None
    seen = facts.live[PLACE]
    assert facts.breakers == {PLACE: "open"}
    assert (seen.available, seen.samples, seen.in_flight, seen.room) == (False, 21, 3, 12)
    assert 295_000 < (seen.ttft_p95_us or 0) < 305_000
    assert (seen.total_p95_us, seen.others) == (None, {"ttft_p90_30s": 70})
    assert (seen.share, seen.rest_ms, seen.waiting, seen.ttft_ewma_us) == (0, 9, 1, 50)
    assert facts.as_of_us == 5


def test_a_worker_without_a_limit_of_its_own_leaves_room() -> None:
    facts = merged([_report("a", room=4), _report("b", breaker="half_open")])

    assert facts.live is not None
    assert facts.live[PLACE].room is None
    assert facts.live[PLACE].available
    assert facts.breakers == {PLACE: "half_open"}


def test_without_a_store_nothing_is_known_and_it_is_said() -> None:
    facts = run(read(None))

    assert facts.live is None
    assert facts.plain()["known"] is False
    assert "store" in facts.plain()["why_not"]
