"""Spans of time at the ends of the calendar: answered or refused, never a fault of ours."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.admin_server import admin_server

LAST = "9999-12-31T23:59:59Z"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    home: Path = tmp_path_factory.mktemp("admin")
    with admin_server(f"sqlite:///{home / 'a.db'}") as server, server.client() as client:
        yield client


@pytest.mark.parametrize("path", ["/usage", "/usage/requests"])
@pytest.mark.parametrize(
    ("span", "status"),
    [
        ({"to": LAST}, 200),
        ({"from": "9999-12-31T00:00:00Z", "to": LAST}, 200),
        ({"from": "1970-01-01T00:00:00Z", "to": "9999-12-31T23:59:59+00:00"}, 200),
        ({"from": LAST, "to": LAST}, 422),
        ({"from": LAST}, 422),
        ({"to": "9999-12-31T23:59:59.999999Z"}, 422),
        ({"to": "9999-12-31T23:59:59-14:00"}, 422),
        ({"from": "0001-01-01T00:00:00Z"}, 422),
        ({"from": "0001-01-01T00:00:00+14:00"}, 422),
        ({"from": "1970-01-01T00:00:00Z", "to": "1970-01-01T00:00:01Z"}, 200),
    ],
)
def test_the_ends_of_the_calendar_are_answered_or_refused_by_name(
    client: httpx.Client, path: str, span: dict[str, str], status: int
) -> None:
    answer = client.get(path, params=span)

    assert answer.status_code == status, answer.text
    if status == 422:
        assert answer.json()["errors"][0]["field"] in span


def test_every_end_in_the_future_is_the_same_question(client: httpx.Client) -> None:
    answers = [
        client.get("/usage", params={"group_by": "hour,day,tag:app", "to": end}).json()["items"]
        for end in (LAST, "2400-01-01T00:00:00Z")
    ]

    assert answers == [[], []]
