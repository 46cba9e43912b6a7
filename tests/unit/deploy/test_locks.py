"""The locks: exact, hashed, without addresses, and in agreement with one another."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LOCKS = ROOT / "deploy" / "locks"
PIN = re.compile(r"^([a-z0-9.-]+)==(\S+?)(?: ;.*)? \\$", re.MULTILINE)


def locked(name: str) -> dict[str, str]:
    return dict(PIN.findall((LOCKS / f"{name}.txt").read_text()))


def pinned(requirement: str) -> tuple[str, str]:
    name, _, version = requirement.partition(";")[0].partition("==")
    return re.sub(r"\[.*\]", "", name).lower().replace("_", "-"), version


@pytest.mark.parametrize("name", ["core", "demo", "test"])
def test_a_lock_holds_hashes_and_no_addresses(name: str) -> None:
    text = (LOCKS / f"{name}.txt").read_text()

    assert "://" not in text
    assert "--index" not in text
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(locked(name))
    assert [block for block in blocks if "--hash=sha256:" not in block] == []


def test_each_lock_is_part_of_the_next() -> None:
    core, demo, test = locked("core"), locked("demo"), locked("test")

    assert core.items() < demo.items() < test.items()


def test_the_locks_hold_what_the_project_pins() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    built = project["build-system"]["requires"]
    core = [*project["project"]["dependencies"], *built, *extras["catalogue"]]

    for name, wanted in (
        ("core", core),
        ("demo", [*core, *extras["demo"]]),
        ("test", [*core, *extras["demo"], *extras["test"]]),
    ):
        assert dict(map(pinned, wanted)).items() <= locked(name).items()


def test_nothing_that_needs_a_compiler_or_a_download_is_locked() -> None:
    assert locked("test").keys().isdisjoint({"llama-cpp-python", "llm", "huggingface-hub"})
