"""The demo's own tenants, keys and backends: made once, mended where missing, nothing else touched.

The demo's directory remembers which objects are the demo's (`state.json`) and the secrets of its
keys (`keys.json`). A key is never rotated: where one was revoked, or its secret is lost, the app
gets a new key under a new name.
"""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

from gateway.commands import documents
from gateway.commands.remote import Remote
from gateway.secrets import write_private

SEED = Path(__file__).parent.parent / "seed" / "demo.yaml"
APPS = ("helpdesk-bot", "support-search", "research-notebook", "research-batch")
FIRST_APP = APPS[0]  # its key stands in the request that `up` prints
Views = dict[str, list[dict[str, Any]]]  # kind -> objects


class SeedingError(Exception):
    """The demo cannot be set up here; the message says why and what helps."""


@dataclass
class Remembered:
    """What is the demo's. `objects` are ids by kind; `shown` once its tour came to an end."""

    digest: str = ""
    objects: dict[str, list[str]] = field(default_factory=dict)
    shown: bool = False


@dataclass(frozen=True)
class Key:
    id: str
    name: str
    secret: str


@dataclass(frozen=True)
class Demo:
    """The demo as it now is. `seeded`: it was not, or not whole, before."""

    keys: dict[str, Key]  # by app
    tenants: list[dict[str, Any]]  # as the admin API shows them
    seeded: bool
    shown: bool
    warnings: str = ""


def put_in_place(admin: Remote, directory: Path) -> Demo:
    """SeedingError when it cannot be. What is there already, and as it was left, stays as it is."""
    there: Views = {kind: list(admin.all(noun)) for kind, noun in documents.NOUNS.items()}
    state = _state(directory)
    if state is None:
        _refuse_foreign(there)
        state = Remembered()
    keys = _living(directory, there)
    text = _text(directory, {app: _name(app, keys, there) for app in APPS})
    digest = hashlib.sha256(text.encode()).hexdigest()
    warnings = ""
    whole = digest == state.digest and len(keys) == len(APPS) and not _missing(state, there)
    if not whole:
        _write_state(directory, state)  # from here on these names are the demo's
        steps, error, warnings = _apply(directory, text)
        keys |= _made(steps)
        _write_keys(directory, keys)
        if error:
            raise SeedingError(f"the demo's seed was refused: {error}")
        _remember(state, digest, steps)
        _write_state(directory, state)
    if not (directory / "key").exists() or not whole:
        write_private(directory / "key", keys[FIRST_APP].secret + "\n")
    ours = set(state.objects["tenant"])
    tenants = [each for each in admin.all("tenants") if each["id"] in ours]
    return Demo(keys, tenants, not whole, state.shown, warnings)


def mark_shown(directory: Path) -> None:
    """The tour came to its end; it is not driven again."""
    state = _state(directory) or Remembered()
    state.shown = True
    _write_state(directory, state)


def _refuse_foreign(there: Views) -> None:
    """Without a memory of its own the demo has no claim to objects that bear its names."""
    taken = [
        f"{kind} {each['name']}"
        for kind in ("tenant", "backend", "model")
        for each in there[kind]
        if each["name"] in _seeded(kind)
    ]
    if taken:
        raise SeedingError(
            f"this installation has a {', '.join(taken)} of its own, and the demo touches nothing "
            "that is not the demo's; give it another home: --demo --home DIRECTORY"
        )


def _living(directory: Path, there: Views) -> dict[str, Key]:
    """The demo's keys that can be used: not revoked, and their secret is at hand."""
    path = directory / "keys.json"
    kept = json.loads(path.read_bytes()) if path.exists() else {}
    ours = {each["id"] for each in there["tenant"] if each["name"] in _seeded("tenant")}
    live = {
        each["id"]: each["name"]
        for each in there["key"]
        if each["revoked_at"] is None and each["tenant_id"] in ours
    }
    return {
        app: Key(known["id"], live[known["id"]], known["secret"])
        for app, known in kept.items()
        if app in APPS and known["id"] in live
    }


def _name(app: str, keys: dict[str, Key], there: Views) -> str:
    """The name of the app's key: the one it has, else one that no key of the demo's tenants had."""
    if app in keys:
        return keys[app].name
    ours = {each["id"] for each in there["tenant"] if each["name"] in _seeded("tenant")}
    taken = {each["name"] for each in there["key"] if each["tenant_id"] in ours}
    name, number = app, 1
    while name in taken:
        number += 1
        name = f"{app}-{number}"
    return name


def _text(directory: Path, names: dict[str, str]) -> str:
    """The seed with this machine's ports and the names of the keys."""
    ports = json.loads((directory / "ports.json").read_bytes())
    urls = {f"{name}_url": f"http://127.0.0.1:{port}/v1" for name, port in ports.items()}
    text = Template(SEED.read_text(encoding="utf-8")).substitute(urls)
    for app, name in names.items():
        text = re.sub(rf"\b{app}\b(?!-)", name, text)
    return text


@cache
def _seeded(kind: str) -> frozenset[str]:
    """The names that the seed gives to objects of a kind."""
    found = documents.read([SEED])
    return frozenset(each.fields["name"] for each in found if each.kind == kind)


def _missing(state: Remembered, there: Views) -> bool:
    ids = {kind: {each["id"] for each in views} for kind, views in there.items()}
    return any(set(ours) - ids[kind] for kind, ours in state.objects.items())


def _apply(directory: Path, text: str) -> tuple[list[dict[str, Any]], str, str]:
    """Through the command that an operator would use: its steps, why it ended early, warnings."""
    file = directory / "demo.yaml"
    write_private(file, text)
    command = [sys.executable, "-P", "-m", "gateway", "apply", "-f", str(file), "--json"]
    applied = subprocess.run(command, capture_output=True, text=True, check=False)
    if not applied.stdout:
        return [], applied.stderr, ""
    said = json.loads(applied.stdout)
    return said["steps"], said["error"] or "", applied.stderr


def _remember(state: Remembered, digest: str, steps: list[dict[str, Any]]) -> None:
    state.digest = digest
    state.objects = {kind: [] for kind in documents.KINDS}
    for step in steps:
        state.objects[step["kind"]].append(step["id"])


def _made(steps: list[dict[str, Any]]) -> Iterator[tuple[str, Key]]:
    """Keys that were just made, by app."""
    for step in steps:
        if step.get("secret"):
            name = step["label"].rpartition("/")[2]
            app = next(app for app in APPS if re.fullmatch(rf"{app}(-[0-9]+)?", name))
            yield app, Key(step["id"], name, step["secret"])


def _write_keys(directory: Path, keys: dict[str, Key]) -> None:
    kept = {app: {"id": key.id, "secret": key.secret} for app, key in keys.items()}
    write_private(directory / "keys.json", json.dumps(kept, indent=1) + "\n")


def _write_state(directory: Path, state: Remembered) -> None:
    write_private(directory / "state.json", json.dumps(asdict(state), indent=1) + "\n")


def _state(directory: Path) -> Remembered | None:
    """None before the first seeding. A home of an earlier release has its keys but no state."""
    path = directory / "state.json"
    if path.exists():
        return Remembered(**json.loads(path.read_bytes()))
    return Remembered() if (directory / "keys.json").exists() else None
