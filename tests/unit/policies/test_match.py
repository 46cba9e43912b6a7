from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from policies.match import HOURS, INPUT_TOKENS, STREAM, TAGS, Occasion, facets_of, minute_of_week
from policies.readers import FieldError
from tests.policy_builders import a_document

BERLIN = ZoneInfo("Europe/Berlin")


def at(day: str, clock: str) -> int:
    days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    return days.index(day) * 1440 + int(clock[:2]) * 60 + int(clock[3:])


def holds(match: dict[str, Any], **occasion: Any) -> bool:
    facets = a_document(match=match).facets
    assert facets is not None
    given: dict[str, Any] = {"stream": False, "input_tokens": 0, "tags": {}, "minute_of_week": 0}
    return facets.hold(Occasion(**given | occasion))


def test_a_document_that_asks_for_nothing_but_models_has_no_facets() -> None:
    assert a_document(match={"models": ["chat"]}).facets is None
    assert facets_of(None, None, None, None) is None


def test_every_tag_must_be_claimed_and_have_one_of_its_values() -> None:
    match = {"tags": {"env": "prod", "job": ["nightly", "weekly"]}}

    assert holds(match, tags={"env": "prod", "job": "weekly", "more": "x"})
    assert not holds(match, tags={"env": "prod"})
    assert not holds(match, tags={"env": "dev", "job": "weekly"})
    assert not holds(match, tags={})


def test_hours_end_before_their_end() -> None:
    match = {"hours": {"from": "09:00", "to": "17:30", "days": ["tue"]}}

    assert not holds(match, minute_of_week=at("tue", "08:59"))
    assert holds(match, minute_of_week=at("tue", "09:00"))
    assert holds(match, minute_of_week=at("tue", "17:29"))
    assert not holds(match, minute_of_week=at("tue", "17:30"))
    assert not holds(match, minute_of_week=at("wed", "12:00"))


def test_a_night_belongs_to_the_day_on_which_it_begins() -> None:
    match = {"hours": {"from": "22:00", "to": "06:00", "days": ["sun"]}}

    assert holds(match, minute_of_week=at("sun", "23:59"))
    assert holds(match, minute_of_week=at("mon", "05:59"))
    assert not holds(match, minute_of_week=at("mon", "06:00"))
    assert not holds(match, minute_of_week=at("sun", "05:00"))
    assert not holds(match, minute_of_week=at("mon", "23:00"))


def test_days_alone_are_whole_days_and_hours_alone_are_of_every_day() -> None:
    assert holds({"hours": {"days": ["sat", "sun"]}}, minute_of_week=at("sat", "00:00"))
    assert holds({"hours": {"days": ["sat", "sun"]}}, minute_of_week=at("sun", "23:59"))
    assert not holds({"hours": {"days": ["sat", "sun"]}}, minute_of_week=at("mon", "00:00"))
    assert holds({"hours": {"to": "08:00"}}, minute_of_week=at("thu", "07:59"))
    assert not holds({"hours": {"to": "08:00"}}, minute_of_week=at("thu", "08:00"))


def test_streams_and_sizes_are_compared() -> None:
    assert holds({"stream": True}, stream=True)
    assert not holds({"stream": True}, stream=False)
    assert holds({"stream": False}, stream=False)
    size = {"input_tokens": {"at_least": 10, "at_most": 20}}
    assert [holds(size, input_tokens=n) for n in (9, 10, 20, 21)] == [False, True, True, False]
    assert holds({"input_tokens": {"at_least": 10}}, input_tokens=10**9)


@pytest.mark.parametrize(
    ("utc", "shown"),
    [
        (datetime(2026, 11, 22, 22, 59, 59, tzinfo=UTC), at("sun", "23:59")),
        (datetime(2026, 11, 22, 23, 0, tzinfo=UTC), at("mon", "00:00")),
        (datetime(2026, 7, 6, 22, 0, tzinfo=UTC), at("tue", "00:00")),
        # Clocks go back at 01:00 UTC: half past two is there twice.
        (datetime(2026, 10, 25, 0, 30, tzinfo=UTC), at("sun", "02:30")),
        (datetime(2026, 10, 25, 1, 30, tzinfo=UTC), at("sun", "02:30")),
    ],
)
def test_the_minute_of_the_week_is_what_the_wall_shows(utc: datetime, shown: int) -> None:
    assert minute_of_week(int(utc.timestamp()) * 1_000_000, BERLIN) == shown


@pytest.mark.parametrize(
    ("read", "written", "says"),
    [
        (TAGS, {}, "1 to 8 tags"),
        (TAGS, {str(n): "v" for n in range(9)}, "1 to 8 tags"),
        (TAGS, ["a"], "1 to 8 tags"),
        (TAGS, {"Env": "prod"}, "not the name of a tag"),
        (TAGS, {"env": "a,b"}, "no value that the tag env can have"),
        (TAGS, {"env": [True]}, "not a text"),
        (TAGS, {"env": None}, "not a list"),
        (HOURS, {}, "not understood"),
        (HOURS, {"from": "08:00", "until": "09:00"}, "not understood"),
        (HOURS, {"from": "8:00"}, "not a time of day"),
        (HOURS, {"from": "24:00"}, "not a time of day"),
        (HOURS, {"from": 1080, "to": "20:00"}, "number 1080"),
        (HOURS, {"from": "08:00", "to": "08:00"}, "begins when it ends"),
        (HOURS, {"days": ["monday"]}, "not a day"),
        (HOURS, {"days": []}, "empty"),
        (STREAM, "on", "not understood"),
        (STREAM, 1, "not understood"),
        (INPUT_TOKENS, {}, "not understood"),
        (INPUT_TOKENS, {"least": 3}, "not understood"),
        (INPUT_TOKENS, {"at_least": -1}, "not a number of tokens"),
        (INPUT_TOKENS, {"at_least": True}, "not a number of tokens"),
        (INPUT_TOKENS, {"at_least": 3, "at_most": 2}, "ends before it begins"),
    ],
)
def test_what_cannot_be_matched_is_refused_with_a_remedy(
    read: Any, written: Any, says: str
) -> None:
    with pytest.raises(FieldError, match=says) as refused:
        read(written)
    assert refused.value.remedy
