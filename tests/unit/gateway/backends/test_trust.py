"""When an endpoint's connections rest, and for how long."""

from gateway.backends.trust import (
    EARLY_S,
    FIRST_PROOFS,
    FORGIVEN_AFTER_S,
    LONG_REST_S,
    MOST_PROOFS,
    REST_S,
    Trust,
)

AT_ONCE_S = 0.001


def earn(trust: Trust, now: float = 0.0) -> int:
    """How many kept rests that took."""
    proofs = 0
    while trust.rest_s:
        trust.kept(now)
        proofs += 1
    return proofs


def test_a_stranger_rests_until_it_has_proven_itself() -> None:
    trust = Trust()
    assert trust.rest_s == REST_S
    assert earn(trust) == FIRST_PROOFS
    assert trust.rest_s == 0


def test_an_early_close_loses_trust_at_once_and_makes_it_dearer() -> None:
    trust = Trust()
    earn(trust)
    assert trust.closed(AT_ONCE_S, 0.0)
    assert trust.rest_s == LONG_REST_S
    assert earn(trust) == 4 * FIRST_PROOFS


def test_an_early_close_before_trust_starts_the_count_again_but_requires_no_more() -> None:
    trust = Trust()
    for _ in range(FIRST_PROOFS - 1):
        trust.kept(0.0)
    assert not trust.closed(AT_ONCE_S, 0.0)
    assert not trust.closed(AT_ONCE_S, 0.0)
    assert trust.rest_s == LONG_REST_S
    assert earn(trust) == FIRST_PROOFS


def test_an_idle_timeout_is_no_early_close() -> None:
    trust = Trust()
    earn(trust)
    assert not trust.closed(EARLY_S + 0.001, 0.0)
    assert trust.rest_s == 0


def test_the_price_of_trust_has_a_bound_and_long_trust_is_forgiven_its_loss() -> None:
    trust = Trust()
    for _ in range(10):
        earn(trust)
        trust.closed(AT_ONCE_S, 1.0)
    assert earn(trust, now=5.0) == MOST_PROOFS
    trust.closed(AT_ONCE_S, 5.0 + FORGIVEN_AFTER_S)
    assert earn(trust) == FIRST_PROOFS


def test_without_a_first_rest_an_endpoint_is_trusted_until_it_fails() -> None:
    trust = Trust(0.0)
    trust.kept(0.0)
    assert trust.rest_s == 0
    assert trust.closed(AT_ONCE_S, 0.0)
    assert trust.rest_s == LONG_REST_S
