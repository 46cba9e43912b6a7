"""The laws of ranking, whatever is seen of the backends; facts are all a decision needs."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from policies import facts
from policies.candidates import Candidate, Live
from policies.compile import EffectivePolicy
from policies.facts import DECODER, Recorder, Standing
from policies.objectives import Objective
from policies.panel import Panel
from policies.rank import is_out, is_saturated, rank
from policies.route import Plan, decide
from tests.policy_builders import GATEWAY, a_candidate, an_ask

FIGURE = st.one_of(st.none(), st.integers(0, 2_000_000))
LIVE = st.builds(
    Live,
    available=st.booleans(),
    in_flight=st.integers(0, 6),
    in_flight_tokens=st.integers(0, 2_000),
    ttft_p95_us=FIGURE,
    tpot_p95_us=FIGURE,
    samples=st.integers(0, 40),
    ttft_ewma_us=st.integers(0, 2_000_000),
    share=st.sampled_from([0, 100, 550, 1_000]),
    room=st.one_of(st.none(), st.integers(2, 6)),
    rest_ms=st.sampled_from([0, 0, 900]),
    waiting=st.one_of(st.none(), st.integers(0, 9)),
    cache_permille=st.one_of(st.none(), st.integers(0, 1_000)),
)
CANDIDATES = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from(["cloud", "edge"])),
    min_size=1,
    max_size=5,
).map(
    lambda drawn: [
        a_candidate(f"bk_{at}", cost_input_picos=cost, weight=weight, placement=place)
        for at, (cost, weight, place) in enumerate(drawn)
    ]
)
POLICIES = st.builds(
    EffectivePolicy,
    prefer=st.sampled_from(["cheapest", "fastest", "balanced", "weighted", ("edge", "cloud")]),
    objectives=st.sampled_from([(), (Objective("ttft", 800_000),)]),
    on_no_data=st.sampled_from(["allow", "avoid"]),
    weights=st.dictionaries(st.sampled_from(["bk_0", "bk_1"]), st.integers(0, 3)),
    affinity=st.sampled_from(["off", "prefix"]),
    max_attempts=st.just(5),
)
SEEN = st.dictionaries(st.integers(0, 4), LIVE)
DRAW = st.integers(0, 2**32 - 1)


def live_of(seen: dict[int, Live]) -> dict[tuple[str, str], Live]:
    return {(f"bk_{at}", "smollm2"): one for at, one in seen.items()}


@given(POLICIES, CANDIDATES, SEEN, DRAW)
def test_all_are_ranked_once_and_the_ejected_and_the_full_come_last(
    policy: EffectivePolicy, those: list[Candidate], seen: dict[int, Live], draw: int
) -> None:
    live = live_of(seen)

    ask = an_ask(prefix=draw & 0xFF)
    ranked = rank(policy, ask, those, live, draw)

    assert sorted(c.backend_id for c in ranked) == sorted(c.backend_id for c in those)
    assert ranked == rank(policy, ask, those, live, draw)
    backs = []
    for candidate in ranked:
        one = live.get((candidate.backend_id, "smollm2"), Live())
        backs.append(2 if is_out(one, draw) else int(is_saturated(candidate, one)))
    if len(those) > 1:
        assert backs == sorted(backs)


@given(POLICIES, CANDIDATES, SEEN, DRAW)
def test_a_decision_is_made_again_from_its_facts(
    policy: EffectivePolicy, those: list[Candidate], seen: dict[int, Live], draw: int
) -> None:
    panel, live, ask = Panel(policy, those), live_of(seen), an_ask(prefix=draw & 0xFF)
    standing = Standing(
        model="chat-default",
        timezone="UTC",
        documents=(),
        policy=policy,
        candidates=tuple(those),
        gateway_jurisdictions=GATEWAY,
    )
    routed = decide(panel, ask, live, GATEWAY, draw)
    attempts = routed.attempts if isinstance(routed, Plan) else ()
    verdicts = panel.judge(ask, live, GATEWAY)[1]

    packed = Recorder(standing).facts(ask, live, verdicts, attempts, draw, 0)
    for one in live.values():  # what is seen changes with the next request
        one.in_flight += 9

    kept = DECODER.decode(packed)
    again = decide(
        Panel(policy, those), kept.ask, facts.live_of(standing, kept), GATEWAY, kept.draw
    )
    assert again == routed or msgspec.json.encode(again) == msgspec.json.encode(routed)
