"""Alert channels: the secret goes in and never comes out, and no URL leads where none may."""

from typing import Any

import httpx
import pytest

from gateway.stores.sql import alerts
from gateway.stores.sql.engine import reading
from gateway.stores.sql.seal import Sealer
from tests.admin_server import SEALING_KEY, AdminServer, Made, refused

SECRET = "hush-hush-hush-hush"


def channel(scope: dict[str, str], **changes: Any) -> dict[str, Any]:
    return {
        "name": "hook", "scope": scope, "url": "https://hooks.example.com/m", "secret": SECRET
    } | changes  # fmt: skip


def test_a_secret_goes_in_sealed_and_never_comes_out(
    admin_house: AdminServer, admin_client: httpx.Client, made: Made
) -> None:
    scope = {"tenant": made.tenant()["id"]}
    made_one = made.make("alert-channels", **channel(scope))
    path = f"/alert-channels/{made_one['id']}"

    def kept() -> str:
        with reading(admin_house.engine) as connection:
            row = alerts.CHANNELS.one(connection, id=made_one["id"])
        assert row is not None
        return Sealer(SEALING_KEY).unseal(row.id, row.secret_sealed)

    assert kept() == SECRET
    shown = [admin_client.get(at).text for at in (path, "/alert-channels", "/audit")]
    assert SECRET not in "".join([str(made_one), *shown])
    assert admin_client.put(path, json=made_one).status_code == 200
    assert kept() == SECRET
    other = admin_client.put(path, json=made_one | {"secret": "another-secret-of-16"})
    assert (other.status_code, kept()) == (200, "another-secret-of-16")
    assert made_one["rules"] == [
        "threshold", "burn_rate", "forecast", "anomaly", "loop", "ledger"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "status", "field"),
    [
        ({"url": "http://169.254.169.254/x"}, 422, "url"),
        ({"url": "https://user:pass@example.com/x"}, 422, "url"),
        ({"url": "file:///etc/passwd"}, 422, "url"),
        ({"url": "https://metadata.google.internal/x"}, 422, "url"),
        ({"secret": "short"}, 400, "secret"),
        ({"rules": ["weather"]}, 400, "rules[0]"),
        ({"rules": ["forecast", "forecast"]}, 422, "rules"),
        ({"least_amount": "0.0000000001"}, 422, "least_amount"),
    ],
)
def test_a_channel_that_cannot_be_is_refused_by_field(
    admin_client: httpx.Client, made: Made, changes: dict[str, Any], status: int, field: str
) -> None:
    scope = {"tenant": made.tenant()["id"]}

    refused(admin_client.post("/alert-channels", json=channel(scope, **changes)), status, field)


def test_a_new_channel_needs_a_secret_and_a_name_of_its_own(
    admin_client: httpx.Client, made: Made
) -> None:
    scope = {"tenant": made.tenant()["id"]}
    body = channel(scope)
    without = {name: value for name, value in body.items() if name != "secret"}

    refused(admin_client.post("/alert-channels", json=without), 422, "secret")
    made.make("alert-channels", **body)
    assert admin_client.post("/alert-channels", json=body).json()["code"] == "already_exists"


def test_a_team_with_a_channel_stays_until_that_is_gone(
    admin_client: httpx.Client, made: Made
) -> None:
    team = made.team(made.tenant()["id"])
    one = made.make("alert-channels", **channel({"team": team["id"]}))

    refused(admin_client.delete(f"/teams/{team['id']}"), 409)
    assert admin_client.delete(f"/alert-channels/{one['id']}").status_code == 204
    assert admin_client.delete(f"/teams/{team['id']}").status_code == 204
