from collections import Counter
from typing import Any

import pytest

from policies.experiment import EXPERIMENT, Experiment, experiment_of
from policies.readers import FieldError

AT = ("tenant", "tenant_1")
TRIAL = experiment_of({"name": "trial", "split": {"new": 10, "chat": 90}}, *AT)


def test_a_subject_always_gets_the_same_model_and_shares_are_those_of_the_weights() -> None:
    keys = [f"key_{number}" for number in range(5_000)]

    first, again = ({key: TRIAL.variant(key, {}) for key in keys} for _ in range(2))

    assert first == again
    assert 0.08 < Counter(first.values())["new"] / len(keys) < 0.12


def test_another_weight_moves_subjects_one_way_only() -> None:
    more = experiment_of({"name": "trial", "split": {"chat": 70, "new": 30}}, *AT)
    keys = [f"key_{number}" for number in range(500)]

    assert {more.variant(key, {}) for key in keys if TRIAL.variant(key, {}) == "new"} == {"new"}


def test_experiments_divide_independently() -> None:
    halves = {"chat": 1, "new": 1}
    one, other = (experiment_of({"name": name, "split": halves}, *AT) for name in ("one", "other"))
    keys = [f"key_{number}" for number in range(1_000)]

    both = Counter((one.variant(key, {}), other.variant(key, {})) for key in keys)

    assert min(both.values()) > 180
    assert len(both) == 4


def test_the_subject_may_be_a_tag_and_is_the_key_where_it_is_missing() -> None:
    by_user = Experiment("trial", "tag:user", (("chat", 1), ("new", 1)))
    by_key = Experiment("trial", "key", (("chat", 1), ("new", 1)))
    users = [{"user": f"u{number}"} for number in range(50)]

    assert len({by_user.variant("key_1", tags) for tags in users}) == 2
    assert {by_user.variant("key_1", users[0]) == by_user.variant("key_2", users[0])} == {True}
    for number in range(50):
        key = f"key_{number}"
        assert by_user.variant(key, {}) == by_key.variant(key, users[number])


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ({"name": "t"}, "not understood"),
        ({"name": "t", "split": {"a": 1, "b": 1}, "shadow": "c"}, "not understood"),
        ({"name": "T 1", "split": {"a": 1, "b": 1}}, "not a name"),
        ({"name": "t", "split": {"a": 1}}, "does not divide"),
        ({"name": "t", "split": {"a": 1, "b": 0}}, "not a weight"),
        ({"name": "t", "split": {"a": 1, "b": True}}, "not a weight"),
        ({"name": "t", "split": {"a": 1, "": 1}}, "not a text"),
        ({"name": "t", "split": {"a": 1, "b": 1}, "by": "team"}, "names no subject"),
        ({"name": "t", "split": {"a": 1, "b": 1}, "by": "tag:A"}, "names no subject"),
        ({"name": "t", "split": {"a": 1, "b": 1}, "by": 3}, "names no subject"),
    ],
)
def test_what_divides_nothing_is_refused(written: Any, says: str) -> None:
    with pytest.raises(FieldError, match=says):
        EXPERIMENT(written)


def shadowing(percent: int) -> Experiment:
    shadow = {"model": "next", "percent": percent, "payer": {"key": "key_lab"}}
    return experiment_of({"name": "trial", "shadow": shadow}, "team", "team_1")


def test_a_share_of_the_subjects_has_a_shadow_and_a_larger_share_has_all_of_a_smaller() -> None:
    keys = [f"key_{number}" for number in range(2_000)]
    few, more = ({key for key in keys if shadowing(n).shadowed(key, {})} for n in (5, 30))

    assert few < more
    assert 0.03 < len(few) / len(keys) < 0.07
    assert {key for key in keys if shadowing(100).shadowed(key, {})} == set(keys)


def test_who_has_a_shadow_does_not_depend_on_who_got_which_model() -> None:
    shadow = {"model": "next", "percent": 50, "payer": {"key": "key_lab"}}
    trial = experiment_of({"name": "t", "split": {"a": 1, "b": 1}, "shadow": shadow}, *AT)
    keys = [f"key_{number}" for number in range(1_000)]

    both = Counter((trial.variant(key, {}), trial.shadowed(key, {}) is None) for key in keys)

    assert len(both) == 4
    assert min(both.values()) > 180
