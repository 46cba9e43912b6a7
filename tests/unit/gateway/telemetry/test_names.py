"""gateway.telemetry.names against the published conventions."""

from collections.abc import Mapping

import pytest

from gateway.telemetry import names
from gateway.telemetry.genai import GenAi
from gateway.telemetry.metrics import HISTOGRAM, Registry
from gateway.telemetry.names import Convention
from tests.unit.gateway.telemetry import conventions

EITHER = conventions.RELEASED | conventions.LATEST


@pytest.mark.parametrize(
    ("convention", "published"),
    [
        (Convention.RELEASED, conventions.RELEASED),
        (Convention.LATEST, conventions.LATEST),
        (Convention.BOTH, EITHER),
    ],
)
def test_each_generation_has_exactly_its_published_names_units_and_buckets(
    convention: Convention, published: Mapping[str, tuple[str, list[float]]]
) -> None:
    registry = Registry()

    GenAi(registry, convention)

    shown = {
        name: (values.family.unit, [edge / values.family.divisor for edge in values.family.bounds])
        for values in registry.values()
        for name in values.family.names
    }
    assert shown == dict(published)


def test_counters_and_histograms_are_what_the_conventions_say() -> None:
    registry = Registry()

    GenAi(registry, Convention.BOTH)

    for values in registry.values():
        for name in values.family.names:
            assert (values.family.kind == HISTOGRAM) == bool(EITHER[name][1]), name


def test_http_buckets_go_beyond_the_prescribed_ones_and_keep_them_all() -> None:
    ours = [edge / 1_000_000 for edge in names.HTTP_US]

    assert ours[: len(conventions.HTTP)] == conventions.HTTP
    assert ours[-1] >= 600


def test_every_bucket_list_rises() -> None:
    for edges in (
        names.DURATION_US,
        names.TOKEN_COUNTS,
        names.FIRST_TOKEN_US,
        names.OUTPUT_TOKEN_US,
        names.HTTP_US,
        names.SMALL_US,
    ):
        assert list(edges) == sorted(set(edges))


def test_operations_are_among_the_published_ones() -> None:
    assert set(names.OPERATIONS.values()) == conventions.OPERATIONS
