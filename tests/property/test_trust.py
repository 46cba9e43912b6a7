"""Laws of trust, for any backend whatever it does."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.trust import EARLY_S, FIRST_PROOFS, LONG_REST_S, REST_S, Trust

# A row of rests that were kept, or a close so many seconds after an answer.
_KEPT = st.integers(1, 3 * FIRST_PROOFS).map(lambda times: [None] * times)
_CLOSED = st.floats(0, 2 * EARLY_S).map(lambda after_s: [after_s])
DEEDS = st.lists(st.one_of(_KEPT, _CLOSED), max_size=60).map(
    lambda runs: [*itertools.chain.from_iterable(runs)]
)


@given(DEEDS)
def test_trust_rests_on_an_unbroken_row_of_kept_connections(deeds: list[float | None]) -> None:
    trust, row = Trust(), 0
    for deed in deeds:
        if deed is None:
            trust.kept(0.0)
            row += 1
        else:
            lost = trust.closed(deed, 0.0)
            if deed <= EARLY_S:
                row = 0
            assert not lost or trust.rest_s
        assert trust.rest_s or row >= FIRST_PROOFS


@given(DEEDS)
def test_each_loss_of_trust_costs_four_times_the_proofs_of_the_last(
    deeds: list[float | None],
) -> None:
    trust, losses = Trust(), 0
    for deed in deeds:
        if deed is None:
            trust.kept(0.0)
        else:
            losses += trust.closed(deed, 0.0)
    proofs = deeds.count(None)
    assert sum(FIRST_PROOFS * 4**loss for loss in range(losses)) <= proofs


@given(DEEDS)
def test_who_has_closed_early_rests_long_until_trusted_again(deeds: list[float | None]) -> None:
    trust, caught = Trust(), False
    for deed in deeds:
        if deed is None:
            trust.kept(0.0)
        else:
            trust.closed(deed, 0.0)
            caught = caught or deed <= EARLY_S
        assert trust.rest_s in (0, LONG_REST_S if caught else REST_S)
