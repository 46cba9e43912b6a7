from gateway.backends.health import REFRESH_US, SWEEP_US, Backends, Outcome
from policies.breaker import CONSECUTIVE, OPEN_US
from policies.latency import SLOT_US
from policies.outliers import OUT_US, RAMP_US

KEY = ("bk_1", "m")
PEER = ("bk_2", "m")
SECOND = 1_000_000


def ends(backends: Backends, key: tuple[str, str], at_us: int, *outcomes: Outcome) -> None:
    for outcome in outcomes:
        backends.began(*key, 1, at_us).ended(outcome, at_us)


def test_one_that_fails_more_than_its_peer_is_ejected_and_returns() -> None:
    backends = Backends()
    for _ in range(10):
        ends(backends, KEY, SECOND, Outcome.SERVED, Outcome.SERVED, Outcome.FAILED)
        ends(backends, PEER, SECOND, *[Outcome.SERVED] * 3)

    live = backends.live(2 * SECOND)
    assert (live[KEY].share, live[PEER].share) == (0, 1_000)
    assert live[KEY].available, "last, but not barred"

    back_us = 2 * SECOND + OUT_US
    assert backends.live(back_us)[KEY].share == 100
    assert backends.live(back_us + RAMP_US)[KEY].share == 1_000, "not judged by what was before"


def test_one_that_failed_since_it_is_back_is_out_again() -> None:
    backends = Backends()
    for at_us in (SECOND, SECOND + SLOT_US):
        ends(backends, KEY, at_us, *[Outcome.SERVED, Outcome.SERVED, Outcome.FAILED] * 10)
        ends(backends, PEER, at_us, *[Outcome.SERVED] * 30)
        backends.live(at_us + SWEEP_US)

    assert backends.live(SLOT_US + 10 * SECOND)[KEY].share == 0


def test_a_backend_that_was_dead_comes_back_by_and_by() -> None:
    backends = Backends()
    ends(backends, KEY, 0, *[Outcome.FAILED] * CONSECUTIVE)
    assert not backends.live(0)[KEY].available

    ends(backends, KEY, OPEN_US, Outcome.SERVED)
    assert backends.live(OPEN_US)[KEY].share == 100
    assert backends.live(OPEN_US + RAMP_US)[KEY].share == 1_000


def test_a_refusal_for_load_limits_it_and_its_rest_is_kept() -> None:
    backends = Backends()
    flights = [backends.began(*KEY, 1, 0) for _ in range(10)]
    flights[0].wants_less(3_000, 0)
    flights[0].ended(Outcome.REFUSED, 0)
    flights[0].wants_less(60_000, 0)  # it is over

    live = backends.live(0)[KEY]
    assert (live.room, live.rest_ms) == (7, 3_000)
    assert backends.rests(KEY, 2 * SECOND)
    assert backends.live(3 * SECOND)[KEY].rest_ms == 0
    assert not backends.rests(KEY, 3 * SECOND)

    flights[1].wants_less(0, 4 * SECOND)
    assert backends.live(4 * SECOND + REFRESH_US)[KEY].rest_ms == 0, "it did not ask for any"


def test_those_that_share_its_account_rest_too() -> None:
    backends = Backends()
    backends.rest([KEY, PEER], 2_000, 0)
    backends.rest([PEER], 1_000, 0)

    assert backends.live(0)[PEER].rest_ms == 2_000
    assert not backends.rests(("bk_3", "m"), 0)


def test_what_it_failed_while_it_was_dead_is_not_held_against_it_when_it_is_back() -> None:
    backends = Backends()
    ends(backends, PEER, SECOND, *[Outcome.SERVED] * 30)
    ends(backends, KEY, SECOND, *[Outcome.FAILED] * 25)
    assert backends.live(2 * SECOND)[KEY].share == 1_000, "its breaker is open"

    back_us = SECOND + OPEN_US
    ends(backends, KEY, back_us, Outcome.SERVED)
    ends(backends, PEER, back_us, *[Outcome.SERVED] * 30)
    assert backends.live(back_us + SWEEP_US)[KEY].share > 100, "on its way back"
    ends(backends, KEY, SLOT_US, *[Outcome.SERVED, Outcome.SERVED, Outcome.FAILED] * 10)
    assert backends.live(SLOT_US + SWEEP_US)[KEY].share == 0, "but what it failed since is"
