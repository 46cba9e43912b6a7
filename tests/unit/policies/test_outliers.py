from policies.outliers import ALL, IN_LINE, LEAST, Seen, Standing, share, sweep

SECOND = 1_000_000


def test_one_that_fails_as_no_other_does_is_ejected_and_comes_back_by_and_by() -> None:
    well, ill = Seen(100, 1, None), Seen(100, 40, None)

    after = sweep({}, {"a": well, "b": well, "ill": ill}, 0)

    assert [share(after["ill"], at * SECOND) for at in (0, 4, 5, 9, 13)] == [0, 0, 100, 550, ALL]
    assert share(after["a"], 0) == ALL
    again = sweep(after, {"a": well, "b": well, "ill": ill}, 6 * SECOND)
    assert share(again["ill"], 15 * SECOND) == 0, "twice as long the second time"
    assert share(again["ill"], 16 * SECOND) > 0
    late = sweep(after, {"a": well, "b": well, "ill": Seen()}, 60 * SECOND)
    assert late["ill"] == IN_LINE


def test_one_that_has_become_slow_is_ejected_and_one_that_always_was_is_not() -> None:
    quick, slow = Seen(100, 0, 200_000), Seen(100, 0, 1_000_000)
    standings = {"a": Standing(usual_us=200_000), "b": Standing(usual_us=1_000_000)}
    row = {"a": quick, "b": slow, "c": quick}

    assert share(sweep(standings, row, 0)["b"], 0) == ALL
    assert share(sweep(standings | {"b": Standing(usual_us=200_000)}, row, 0)["b"], 0) == 0
    assert share(sweep({}, row, 0)["b"], 0) == ALL, "without a history nothing is new"


def test_few_samples_say_nothing_and_the_usual_follows_slowly() -> None:
    ill = Seen(LEAST - 1, LEAST - 1, None)
    assert share(sweep({}, {"a": Seen(100, 0, 1_000), "b": ill}, 0)["b"], 0) == ALL

    standings = sweep({}, {"a": Seen(100, 0, 1_000), "b": Seen(100, 0, 1_000)}, 0)
    assert standings["a"].usual_us == 1_000
    moved = sweep(standings, {"a": Seen(100, 0, 1_128), "b": Seen(100, 0, 999)}, 0)
    assert (moved["a"].usual_us, moved["b"].usual_us) == (1_001, 999)
