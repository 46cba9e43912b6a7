"""gateway.telemetry.prometheus"""

import re

import pytest

from gateway.telemetry.metrics import COUNTER, GAUGE_SUM, HISTOGRAM, Family, FamilyValues
from gateway.telemetry.prometheus import metric_name, render


@pytest.mark.parametrize(
    ("name", "unit", "kind", "shown"),
    [
        ("http.server.request.duration", "s", HISTOGRAM, "http_server_request_duration_seconds"),
        ("gen_ai.client.token.usage", "{token}", HISTOGRAM, "gen_ai_client_token_usage"),
        ("meterhouse.refusals", "{request}", COUNTER, "meterhouse_refusals_total"),
        ("process.memory.usage", "By", GAUGE_SUM, "process_memory_usage_bytes"),
    ],
)
def test_names_follow_the_rules_of_opentelemetry_for_prometheus(
    name: str, unit: str, kind: str, shown: str
) -> None:
    assert metric_name(name, unit, kind) == shown


def test_a_histogram_is_cumulative_and_divided_exactly() -> None:
    family = Family(
        names=("a.wait",),
        kind=HISTOGRAM,
        help="Waiting.",
        unit="s",
        labels=("http.route", "error.type"),
        bounds=(10_000, 1_000_000, 2_500_000),
        divisor=1_000_000,
    )

    text = render([FamilyValues(family, [(("/v1", ""), [3_020_000, 1, 0, 1, 1])])])

    assert text.decode().splitlines() == [
        "# HELP a_wait_seconds Waiting.",
        "# TYPE a_wait_seconds histogram",
        'a_wait_seconds_bucket{http_route="/v1",le="0.01"} 1',
        'a_wait_seconds_bucket{http_route="/v1",le="1"} 1',
        'a_wait_seconds_bucket{http_route="/v1",le="2.5"} 2',
        'a_wait_seconds_bucket{http_route="/v1",le="+Inf"} 3',
        'a_wait_seconds_sum{http_route="/v1"} 3.02',
        'a_wait_seconds_count{http_route="/v1"} 3',
    ]


def test_label_values_are_escaped() -> None:
    family = Family(names=("a",), kind=COUNTER, help="", labels=("x",))

    text = render([FamilyValues(family, [(('a"b\\c\nd',), [1])])])

    assert text.endswith(b'a_total{x="a\\"b\\\\c\\nd"} 1\n')


def test_a_family_without_series_is_not_shown() -> None:
    assert render([FamilyValues(Family(names=("a",), kind=COUNTER, help=""), [])]) == b""


def test_every_line_is_of_the_text_format() -> None:
    gauge = Family(names=("a.b-c",), kind=GAUGE_SUM, help="Help.", labels=("x.y",))

    text = render([FamilyValues(gauge, [(("1",), [5]), (("2",), [-5])])]).decode()

    line = re.compile(r'(# (HELP|TYPE) \w+ .+|\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? -?[\d.e+-]+)')
    assert all(line.fullmatch(each) for each in text.splitlines())
