"""What a draft would have changed, added up to the pico."""

import msgspec

from policies.candidates import Live
from policies.difference import Difference
from policies.facts import DECODER, Record, Recorder
from policies.replay import Again, Outcome
from tests.policy_builders import a_candidate, an_ask, seen_as
from tests.unit.policies.test_facts import a_standing

CHEAP = a_candidate("bk_cheap", cost_input_picos=1_000_000, cost_output_picos=2_000_000)
DEAR = a_candidate("bk_dear", cost_input_picos=None, cost_output_picos=5_000_000, region="us-east")
STANDING = a_standing(candidates=(CHEAP, DEAR))


def an_again(before: Outcome, after: Outcome, team: str = "team_1") -> Again:
    live = seen_as(bk_cheap=Live(ttft_p95_us=200_000, samples=25), bk_dear=Live(samples=3))
    facts = DECODER.decode(Recorder(STANDING).facts(an_ask(), live, (), (), 0, 5))
    record = Record("req_1", "tenant_1", (team,), "key_1", {}, facts)
    return Again(record, STANDING, before, after)


def test_placement_and_money_of_both_sides_are_told() -> None:
    difference = Difference()
    difference.add(an_again(Outcome((0, 1)), Outcome((1,))), (1_000, 500))
    difference.add(an_again(Outcome((0, 1)), Outcome((0, 1))), (10, 0))

    told = difference.plain()
    assert (told["decisions"], told["changed"]) == (2, 1)
    # 1,000 x 1 + 500 x 2 + 10 x 1 of a million; then 1,000 x 2 (its charge) + 500 x 5 + 10
    assert told["before"] == {"refused": 0, "cost": "0.00201", "charge": "0.00602"}
    assert told["after"]["cost"] == "0.00451"
    assert told["moves"] == [
        {"from": "bk_cheap/smollm2 +1", "to": "bk_dear/smollm2", "decisions": 1}
    ]
    regions = {each["region"]: (each["before"], each["after"]) for each in told["regions"]}
    assert regions == {"eu-central": (2, 1), "us-east": (0, 1)}


def test_what_is_refused_costs_nothing_and_is_counted() -> None:
    difference = Difference()
    difference.add(an_again(Outcome((), "no_backend"), Outcome((0,))), None)

    told = difference.plain()
    assert told["before"] == {"refused": 1, "cost": "0", "charge": "0"}
    assert told["after"]["cost"] == "0.00045", "250 tokens of input and 100 of output expected"
    assert told["tokens_expected"] == 1
    assert told["moves"][0]["from"] == "refused: no_backend"


def test_latency_is_what_the_windows_of_then_say_and_what_they_do_not() -> None:
    difference = Difference()
    for _ in range(4):
        difference.add(an_again(Outcome((0,)), Outcome((1,))), None)

    told = difference.plain()["latency"]
    assert told["before"]["known"] == 4
    assert abs(told["before"]["ttft_p95_ms"]["median"] - 200) <= 4
    assert told["before"]["fewest_samples"] == 25
    assert told["after"] == {
        "ttft_p95_ms": {"median": None, "p95": None},
        "known": 0,
        "unknown": 4,
        "fewest_samples": 0,
    }


def test_teams_and_models_beyond_the_bound_are_added_up_together() -> None:
    difference = Difference()
    for n in range(2_010):
        difference.add(an_again(Outcome((0,)), Outcome((0,)), f"team_{n}"), (1, 1))

    told = difference.plain()
    rest = next(group for group in told["groups"] if group["team_id"] == "(others)")
    assert rest["decisions"] == 10
    assert sum(group["decisions"] for group in told["groups"]) == told["decisions"] == 2_010
    assert msgspec.json.encode(told)
