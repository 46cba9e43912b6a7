"""A panel remembers; it must never decide otherwise than the rules read afresh."""

from hypothesis import given
from hypothesis import strategies as st

from policies.ask import Ask
from policies.candidates import Candidate, Live
from policies.compile import EffectivePolicy
from policies.filters import case_of, judge
from policies.objectives import Objective
from policies.panel import Panel
from tests.policy_builders import a_candidate, an_ask

PRICE = st.one_of(st.none(), st.integers(0, 9))
PLACE = st.frozensets(st.sampled_from(["DE", "FR", "US"]), max_size=2)
CAPABILITIES = st.frozensets(st.sampled_from(["chat", "tools", "vision"]), max_size=3)
LATENCY = st.one_of(st.none(), st.integers(0, 9))
CLASSES = st.frozensets(st.sampled_from(["health", "payment"]))
OBJECTIVE = st.builds(
    Objective,
    st.sampled_from(["ttft", "tpot", "total"]),
    st.integers(0, 9),
    percentile=st.sampled_from([95, 99]),
)


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    return [
        a_candidate(
            f"bk_{number}",
            jurisdictions=draw(PLACE),
            placement=draw(st.sampled_from(["cloud", "edge"])),
            capabilities=draw(CAPABILITIES),
            data_classes=draw(CLASSES),
            context_window=draw(st.one_of(st.none(), st.integers(0, 9))),
            charge_input_picos=draw(PRICE),
            charge_output_picos=draw(PRICE),
        )
        for number in range(draw(st.integers(0, 3)))
    ]


POLICIES = st.builds(
    EffectivePolicy,
    residency=st.one_of(st.none(), PLACE),
    capabilities=CAPABILITIES,
    placements=st.one_of(st.none(), st.frozensets(st.sampled_from(["cloud", "edge"]))),
    data_classes=CLASSES,
    least_context=st.one_of(st.none(), st.integers(1, 9)),
    objectives=st.lists(OBJECTIVE, max_size=2).map(tuple),
    on_no_data=st.sampled_from(["allow", "avoid", "refuse"]),
    on_breach=st.sampled_from(["prefer_faster", "shed", "refuse"]),
    max_per_request_picos=st.one_of(st.none(), st.integers(0, 99)),
    max_input_picos_per_token=PRICE,
    max_output_picos_per_token=PRICE,
)
ASKS = st.builds(
    lambda needs, size, wanted: an_ask(
        capabilities=needs, input_bound=size, input_estimate=size, output_wanted=wanted
    ),
    CAPABILITIES,
    st.integers(0, 9),
    st.integers(0, 3),
)
LIVE = st.builds(
    Live,
    available=st.booleans(),
    in_flight=st.integers(0, 1),
    ttft_p95_us=LATENCY,
    tpot_p95_us=LATENCY,
    total_p95_us=LATENCY,
    others=st.dictionaries(st.just("ttft_p99_60s"), LATENCY),
    samples=st.just(20),
)
MOMENTS = st.tuples(ASKS, PLACE, st.dictionaries(st.integers(0, 3), LIVE))


@given(POLICIES, candidates(), st.lists(MOMENTS, min_size=1, max_size=8))
def test_a_panel_that_has_seen_other_requests_judges_as_the_rules_do(
    policy: EffectivePolicy,
    those: list[Candidate],
    moments: list[tuple[Ask, frozenset[str], dict[int, Live]]],
) -> None:
    panel = Panel(policy, those)

    for ask, gateway, seen in moments:
        live = {(f"bk_{number}", "smollm2"): one for number, one in seen.items()}
        case = case_of(policy, ask, gateway)

        verdicts = judge(case, those, live)
        eligible = tuple(c for c, one in zip(those, verdicts, strict=True) if one.eligible)
        assert panel.judge(ask, live, gateway) == (case, verdicts, eligible)
