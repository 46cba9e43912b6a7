"""A house on real engines, as the official OpenAI SDK's users meet it."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import Any

import httpx
import openai

from tests.e2e.house import House, house
from tests.scripted_backend import backend_process
from tests.servers import Engine, llama, minilm

SEED = Path(__file__).with_name("official_sdk.yaml")


class SdkHouse:
    """A running gateway; `secrets` by the key's name; `mortal` is an engine to be killed."""

    def __init__(self, up: House, secrets: dict[str, str], mortal: Engine, scripted: str) -> None:
        self.up = up
        self.secrets = secrets
        self.mortal = mortal
        self._scripted = scripted.removesuffix("/v1")

    def sdk(self, key: str = "app", **options: Any) -> openai.OpenAI:
        """The SDK with this key. It repeats nothing by itself, unless told to."""
        given = {"base_url": f"{self.up.url('gateway')}/v1", "api_key": self.secrets.get(key, key)}
        return openai.OpenAI(**given | {"max_retries": 0, "timeout": 60} | options)

    def script(self, **behaviour: Any) -> None:
        """What the scripted backend does from now on; its book is empty again."""
        httpx.delete(f"{self._scripted}/__book", trust_env=False)
        httpx.post(f"{self._scripted}/__script", json=behaviour, trust_env=False)

    def book(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = httpx.get(f"{self._scripted}/__book", trust_env=False).json()
        return found

    def booked(self, request_id: str | None, within_s: float = 60) -> dict[str, Any]:
        """The attempt that the ledger has for a request."""
        assert request_id is not None
        deadline = time.monotonic() + within_s
        with self.up.admin() as admin:
            while time.monotonic() < deadline:
                answer = admin.get("/usage/requests", params={"request_id": request_id})
                for request in answer.json()["items"]:
                    (attempt,) = request["attempts"]
                    return dict(attempt)
                time.sleep(0.05)
        raise AssertionError(f"the ledger has no {request_id}")


def _applied(up: House, directory: Path, urls: dict[str, str]) -> dict[str, str]:
    """The seed in force on every worker; the new keys' secrets by name."""
    file = directory / "seed.yaml"
    file.write_text(Template(SEED.read_text()).substitute(urls))
    done = up.command("apply", "--json", "-f", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    steps = json.loads(done.stdout)["steps"]
    made = {step["label"].rpartition("/")[2]: step for step in steps if step["kind"] == "key"}
    return {name: step["secret"] for name, step in made.items()}


@contextmanager
def sdk_house(directory: Path) -> Iterator[SdkHouse]:
    with (
        llama(slots=4) as engine,
        llama() as mortal,
        minilm() as vectors,
        backend_process() as scripted,
        house(directory / "home", METERHOUSE_JURISDICTION="DE") as up,
    ):
        urls = {"engine": engine.base_url, "mortal": mortal.base_url}
        urls |= {"vectors": vectors.base_url, "scripted": scripted}
        found = SdkHouse(up, _applied(up, directory, urls), mortal, scripted)
        _until_in_force(found)
        yield found


def _until_in_force(found: SdkHouse, within_s: float = 60) -> None:
    """The limit is applied last: once it is known, so is everything."""
    deadline = time.monotonic() + within_s
    headers = {"authorization": f"Bearer {found.secrets['patient']}"}
    with httpx.Client(base_url=found.up.url("gateway"), headers=headers, trust_env=False) as http:
        while not http.get("/v1/usage").json().get("limits"):
            assert time.monotonic() < deadline, "the configuration did not come into force"
            time.sleep(0.02)
