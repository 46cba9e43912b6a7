"""gateway.telemetry.sampling"""

from random import Random

import pytest

from gateway.telemetry.sampling import Sampler, parent_of, ratio_of

PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("sampler", "argument", "ratio"),
    [
        ("", "", 0.1),
        ("parentbased_traceidratio", "0.25", 0.25),
        ("traceidratio", "1", 1.0),
        ("always_on", "", 1.0),
        ("parentbased_always_off", "", 0.0),
    ],
)
def test_the_standard_samplers_are_understood(sampler: str, argument: str, ratio: float) -> None:
    assert ratio_of(sampler, argument) == ratio


@pytest.mark.parametrize(
    ("sampler", "argument"), [("jaeger_remote", ""), ("traceidratio", "2"), ("", "often")]
)
def test_a_sampler_that_cannot_be_meant_is_refused(sampler: str, argument: str) -> None:
    with pytest.raises(ValueError):
        ratio_of(sampler, argument)


def test_a_callers_trace_is_continued() -> None:
    ids = Sampler(0.5, Random(1)).ids(PARENT)

    assert ids.trace_hex == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert ids.parent_span_id == 0x00F067AA0BA902B7
    assert ids.span_id not in {0, ids.parent_span_id}


def test_a_callers_sampled_flag_and_trace_id_do_not_decide_what_we_keep() -> None:
    never, always = Sampler(0.0, Random(1)), Sampler(1.0, Random(1))
    half = Sampler(0.5, Random(1))

    assert not any(never.ids(PARENT).sampled for _ in range(100))
    assert all(always.ids(PARENT[:-1] + b"0").sampled for _ in range(100))
    assert 400 < sum(half.ids(PARENT).sampled for _ in range(1000)) < 600


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"garbage",
        PARENT.upper(),
        PARENT + b"-extra",
        b"ff" + PARENT[2:],
        b"00-" + b"0" * 32 + PARENT[35:],
        PARENT[:36] + b"0" * 16 + b"-01",
        PARENT.replace(b"4bf9", b"4b_9"),
        PARENT + b"\n",
    ],
)
def test_a_bad_header_is_as_good_as_none(header: bytes) -> None:
    assert parent_of(header) is None
    assert Sampler(0.1, Random(1)).ids(header).parent_span_id == 0


def test_a_later_version_of_the_header_may_be_longer() -> None:
    assert parent_of(b"01" + PARENT[2:] + b"-more") is not None


def test_every_request_has_ids_of_its_own() -> None:
    sampler = Sampler(0.1, Random(1))

    drawn = [sampler.ids(None) for _ in range(1000)]

    assert len({ids.trace_id for ids in drawn}) == 1000
    assert len({ids.span_id for ids in drawn}) == 1000
    assert all(0 < ids.trace_id < 1 << 128 for ids in drawn)
    assert all(0 < ids.span_id < (1 << 64) - 1024 for ids in drawn)
