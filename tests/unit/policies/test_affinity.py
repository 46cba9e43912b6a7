from collections import Counter

from policies.affinity import ALWAYS, affine
from policies.candidates import Candidate, Live
from policies.compile import EffectivePolicy
from policies.rank import rank
from tests.policy_builders import a_candidate, an_ask, seen_as

THREE = [a_candidate(name) for name in ("bk_a", "bk_b", "bk_c")]
IDLE = [Live(), Live(), Live()]
PREFIXES = range(1, 65_536, 16)


def test_a_prefix_has_one_backend_whatever_was_drawn_and_prefixes_are_spread_evenly() -> None:
    shares: Counter[int] = Counter()
    for prefix in PREFIXES:
        first = affine(prefix, [0, 1, 2], THREE, IDLE)[0]
        assert affine(prefix, [2, 1, 0], THREE, IDLE)[0] == first
        shares[first] += 1

    assert all(0.28 < shares[at] / len(PREFIXES) < 0.39 for at in range(3))


def test_one_backend_less_moves_its_own_prefixes_only() -> None:
    for prefix in PREFIXES:
        first = affine(prefix, [0, 1, 2], THREE, IDLE)[0]
        if first != 2:
            assert affine(prefix, [0, 1], THREE, IDLE)[0] == first


def test_a_backend_with_more_than_its_share_is_passed_over() -> None:
    own = affine(7, [0, 1, 2], THREE, IDLE)[0]

    def first(in_flight: int, others: int) -> int:
        seen = [Live(in_flight=in_flight if at == own else others) for at in range(3)]
        return affine(7, [0, 1, 2], THREE, seen)[0]

    assert first(ALWAYS - 1, 0) == own, "no crowd yet"
    assert first(ALWAYS, 0) != own
    assert first(11, 10) == own
    assert first(20, 10) != own


def test_affinity_decides_among_equals_alone_and_only_where_it_is_wanted() -> None:
    wanted, ask = EffectivePolicy(affinity="prefix"), an_ask(prefix=7)
    own = THREE[affine(7, [0, 1, 2], THREE, IDLE)[0]]
    draws = [number << 20 for number in range(0, 4_096, 64)]

    def firsts(policy: EffectivePolicy, ask_prefix: int, *more: Candidate) -> set[str]:
        asked, those = an_ask(prefix=ask_prefix), [*THREE, *more]
        return {rank(policy, asked, those, {}, draw)[0].backend_id for draw in draws}

    assert firsts(wanted, 7) == {own.backend_id}
    assert len(firsts(wanted, 0)) == 3, "too short to begin like another"
    assert len(firsts(EffectivePolicy(), 7)) == 3
    assert len(firsts(EffectivePolicy(affinity="prefix", prefer="weighted"), 7)) == 3
    weights = {own.backend_id: 0}
    assert own.backend_id not in firsts(EffectivePolicy(affinity="prefix", weights=weights), 7)
    cheaper = a_candidate("bk_d", cost_input_picos=0, cost_output_picos=0)
    assert firsts(wanted, 7, cheaper) == {"bk_d"}
    full = rank(wanted, ask, THREE, seen_as(**{own.backend_id: Live(waiting=9)}), 0)
    assert full[0] != own
