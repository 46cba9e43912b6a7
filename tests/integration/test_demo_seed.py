"""What `up --demo` configures: its own things only, made once, mended when missing."""

import importlib
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.commands.remote import Remote
from gateway.stores.sql import configuration
from tests.admin_server import TOKEN, AdminServer, Made, admin_server

PROGRAMS = Path(__file__).parents[2] / "deploy" / "demo"


@pytest.fixture
def seeding(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(PROGRAMS))
    return importlib.import_module("seeding")


@pytest.fixture
def server(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[AdminServer]:
    with admin_server(sqlite_url) as server:
        monkeypatch.setenv("METERHOUSE_ADMIN_URL", server.url)
        monkeypatch.setenv("METERHOUSE_ADMIN_TOKEN", TOKEN)
        monkeypatch.setenv("METERHOUSE_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("PYTHONPATH", str(PROGRAMS.parents[1]))
        yield server


@pytest.fixture
def remote(server: AdminServer) -> Iterator[Remote]:
    with Remote(server.url, TOKEN) as remote:
        yield remote


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "home" / "demo"
    path.mkdir(parents=True)
    (path / "ports.json").write_text(json.dumps({"eu": 9001, "us": 9002, "edge": 9003}))
    return path


def secrets(server: AdminServer) -> dict[str, tuple[str, int | None]]:
    """Every live secret of the installation: a rotation would show as a new one."""
    found = configuration.load(server.engine).secrets
    return {each.public_id: (each.key_id, each.expires_at_us) for each in found}


def public_ids(demo: Any) -> set[str]:
    return {key.secret.split("_")[1] for key in demo.keys.values()}


def test_a_second_start_changes_nothing(
    seeding: Any, server: AdminServer, remote: Remote, directory: Path
) -> None:
    first = seeding.put_in_place(remote, directory)
    seeding.mark_shown(directory)
    revision, kept = configuration.revision(server.engine), secrets(server)

    again = seeding.put_in_place(remote, directory)

    assert (first.seeded, first.shown, again.seeded, again.shown) == (True, False, False, True)
    assert configuration.revision(server.engine) == revision
    assert secrets(server) == kept
    assert again.keys == first.keys
    assert public_ids(again) == set(kept)
    assert [each["name"] for each in again.tenants] == ["acme", "globex"]
    for name in ("keys.json", "key", "state.json", "demo.yaml"):
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600


def test_keys_of_others_are_left_alone_whatever_they_are_called(
    seeding: Any, server: AdminServer, remote: Remote, directory: Path
) -> None:
    with server.client() as client:
        made = Made(client)
        team = made.team(made.tenant()["id"])
        own = made.key(team["id"], name="helpdesk-bot")
        revoked = made.key(team["id"], name="support-search")
        client.post(f"/keys/{revoked['id']}/revoke")
    theirs = secrets(server)

    demo = seeding.put_in_place(remote, directory)
    (directory / "state.json").unlink()  # as a home of an earlier release
    seeding.put_in_place(remote, directory)

    now = secrets(server)
    assert {public: now[public] for public in theirs} == theirs
    assert set(now) - set(theirs) == public_ids(demo)
    assert own["id"] not in {key.id for key in demo.keys.values()}


def test_a_revoked_key_and_a_lost_secret_are_replaced_under_new_names_without_a_rotation(
    seeding: Any, server: AdminServer, remote: Remote, directory: Path
) -> None:
    first = seeding.put_in_place(remote, directory)
    kept = json.loads((directory / "keys.json").read_bytes())
    remote.call("POST", f"/keys/{first.keys['research-batch'].id}/revoke")
    del kept["support-search"]
    (directory / "keys.json").write_text(json.dumps(kept))
    before = secrets(server)

    mended = seeding.put_in_place(remote, directory)
    again = seeding.put_in_place(remote, directory)

    assert mended.seeded
    assert not again.seeded
    assert again.keys == mended.keys
    assert {app: key.name for app, key in mended.keys.items()} == {
        "helpdesk-bot": "helpdesk-bot",
        "support-search": "support-search-2",
        "research-notebook": "research-notebook",
        "research-batch": "research-batch-2",
    }
    assert {public: secrets(server)[public] for public in before} == before
    small = [each for each in remote.all("budgets") if each["amount"] == "0.01"]
    assert [each["scope"]["key"] for each in small] == [
        first.keys["research-batch"].id,
        mended.keys["research-batch"].id,
    ]


def test_what_somebody_deleted_is_made_again_and_what_somebody_changed_stays_changed(
    seeding: Any, server: AdminServer, remote: Remote, directory: Path
) -> None:
    seeding.put_in_place(remote, directory)
    (budget,) = [each for each in remote.all("budgets") if each["amount"] == "25.00"]
    remote.call("PUT", f"/budgets/{budget['id']}", budget | {"amount": "30"})
    assert not seeding.put_in_place(remote, directory).seeded
    assert remote.call("GET", f"/budgets/{budget['id']}").json()["amount"] == "30"

    (limit,) = remote.all("limits")
    remote.call("DELETE", f"/limits/{limit['id']}")
    mended = seeding.put_in_place(remote, directory)

    assert mended.seeded
    assert [each["requests_per_minute"] for each in remote.all("limits")] == [600]
    assert not seeding.put_in_place(remote, directory).seeded


@pytest.mark.parametrize("noun", ["tenants", "backends"])
def test_an_installation_that_has_things_of_these_names_is_not_touched(
    seeding: Any, server: AdminServer, remote: Remote, directory: Path, noun: str
) -> None:
    with server.client() as client:
        made = Made(client)
        made.tenant(name="acme") if noun == "tenants" else made.backend(name="us-cloud")
    revision = configuration.revision(server.engine)

    with pytest.raises(seeding.SeedingError, match="--home"):
        seeding.put_in_place(remote, directory)

    assert configuration.revision(server.engine) == revision
    assert not (directory / "state.json").exists()


def test_a_seeding_that_was_cut_off_is_taken_up_again(
    seeding: Any, server: AdminServer, remote: Remote, directory: Path
) -> None:
    """The state is written first: what is half there is the demo's."""
    seeding.put_in_place(remote, directory)
    (directory / "state.json").write_text('{"digest": "", "objects": {}, "shown": false}')
    (directory / "keys.json").unlink()

    taken_up = seeding.put_in_place(remote, directory)

    assert taken_up.seeded
    assert public_ids(taken_up) <= set(secrets(server))
    assert len(taken_up.keys) == 4
