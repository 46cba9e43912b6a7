"""What the single steps of a request cost in this process, in units of a fixed piece of Python.

The steps are those of a request that a whole gateway has just served; each is run again, alone, on
what it saw then. A unit is measured beside every step, so that a busy or a slow machine changes
both: the ratio is what `BUDGETS` holds. Times are CPU times of this thread, the best of many short
rounds; the ratios come out the same within a twentieth, even where every core is busy twice over.
"""

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from opentelemetry.sdk.resources import Resource

from billing.usage import ENCODER
from gateway.dataplane.arrival import read_head
from gateway.dataplane.authenticate import authenticate
from gateway.dataplane.events import template
from gateway.dataplane.flow import Flow
from gateway.dataplane.observe import record_of
from gateway.dataplane.reading import Reading, read
from gateway.dataplane.relay import _Stream
from gateway.dataplane.replies import answer_headers
from gateway.dataplane.request import DataPlane
from gateway.telemetry.otlp import Envelope
from gateway.telemetry.service import Telemetry, TelemetrySettings
from gateway.telemetry.spans import spans_of
from tests.house import furnish, open_house
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

Step = Callable[[], object]

# Units each step may take: what it took when it was last made cheaper. Raise one only knowingly.
BUDGETS: Final = {
    "the head": 0.33,
    "the key": 0.09,
    "the body": 0.57,
    "route, size and ask": 0.42,
    "plan and quote": 0.90,
    "the event to come": 0.27,
    "a chunk": 0.20,
    "headers of the answer": 0.58,
    "the record": 0.27,
    "metrics and access log": 0.65,
    "spans, when sampled": 4.65,
    "trace ids": 0.06,
}
_CHUNK: Final = (
    b'data: {"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion.chunk",'
    b'"created":1741569952,"model":"m","choices":[{"index":0,"delta":{"content":" the"},'
    b'"logprobs":null,"finish_reason":null}],"usage":null}\n\n'
)
ROOM: Final = 1.6  # for noise; twice the cost does not fit
_ROUNDS: Final = 60
_ROUND_SECONDS: Final = 0.001


def too_dear(measured: dict[str, float]) -> dict[str, float]:
    """The steps that exceed their budget by more than noise explains, with their units."""
    return {step: units for step, units in measured.items() if units > BUDGETS[step] * ROOM}


def measure(steps: dict[str, Step]) -> dict[str, float]:
    """Units of each step."""
    return {name: _units(step) for name, step in steps.items()}


@contextmanager
def steps(store_url: str) -> Iterator[dict[str, Step]]:
    """The steps of a request that a gateway on this store has served."""
    with tempfile.TemporaryDirectory(prefix="mh-stages-") as folder:
        home = Path(folder)
        plane, flow = run(_served(home, store_url))
        own = Telemetry(
            TelemetrySettings(run_dir=home, process="data-0", access_log=str(home / "log.jsonl"))
        )
        yield _walk(plane, flow) | _observation(own, flow)


async def _served(home: Path, store_url: str) -> tuple[DataPlane, Flow]:
    async with ScriptedBackend() as backend, open_house(home, store_url) as house:
        world = await furnish(house, {"base_url": backend.base_url})
        scope = {"key": world.key["id"]}
        await house.make("budgets", scope=scope, amount="100", period="month")
        await house.make("limits", scope=scope, requests_per_minute=6000)
        await house.in_force()
        backend.script = Script(delay_ms=50)
        asking = asyncio.create_task(
            house.ask(
                world.secret, model="chat", messages=[{"role": "user", "content": "x" * 2000}]
            )
        )
        while not house.data.plane.in_flight:
            await asyncio.sleep(0.001)
        (live,) = house.data.plane.in_flight.values()
        answer = await asking
        if answer.status_code != 200:
            raise AssertionError(answer.text)
        await house.settled()
        return house.data.plane, live.flow


def _walk(plane: DataPlane, flow: Flow) -> dict[str, Step]:
    """What happens before and after the backend has it."""
    arrival = flow.arrival
    reading = read(flow.body, flow.operation)
    if not isinstance(reading, Reading):
        raise TypeError("the body of a request that was served cannot be read")
    known: Reading = reading
    scope: Any = {
        "client": ("127.0.0.1", 1),
        "headers": [
            (b"host", b"gateway"),
            (b"user-agent", b"bench"),
            (b"authorization", b"Bearer " + arrival.secret),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(flow.body)),
        ],
    }
    return {
        "the head": lambda: read_head(scope),
        "the key": lambda: authenticate(plane.snapshot, plane.peppers, arrival),
        "the body": lambda: read(flow.body, flow.operation),
        "route, size and ask": lambda: plane._understand(flow, known, plane.snapshot),
        "plan and quote": lambda: plane._plan(flow),
        "the event to come": lambda: ENCODER.encode(template(flow)),
        "a chunk": _chunk(plane, flow),
        "headers of the answer": lambda: answer_headers(flow, b"application/json"),
    }


def _chunk(plane: DataPlane, flow: Flow) -> Step:
    """From the connection to the client, in the middle of a stream; no checkpoint is due."""
    attempt = flow.attempts[-1]
    stream = _Stream(flow, attempt, attempt.way.dialect.meter(), plane._spool)
    stream._at_once = bool
    stream._marks.at_chunks = stream._marks.at_ns = 1 << 63
    return lambda: stream.take(_CHUNK)


def _observation(own: Telemetry, flow: Flow) -> dict[str, Step]:
    record = record_of(flow)
    sampled = msgspec.structs.replace(
        record, trace=msgspec.structs.replace(record.trace, sampled=True)
    )
    envelope = Envelope(Resource({}))

    def finish() -> None:
        own.finish(record)
        own._log._lines.clear()

    return {
        "the record": lambda: record_of(flow),
        "metrics and access log": finish,
        "spans, when sampled": lambda: envelope.body([(7, spans_of(sampled))]),
        "trace ids": lambda: own.trace_ids(None),
    }


def _units(step: Step) -> float:
    times, of_unit = _times(step), _times(_unit)
    mine = unit = float("inf")
    for _ in range(_ROUNDS):
        mine = min(mine, _took(step, times))
        unit = min(unit, _took(_unit, of_unit))
    return mine / unit


def _times(step: Step) -> int:
    """How often a step fits into a round."""
    return max(1, int(_ROUND_SECONDS / min(_took(step, 20) for _ in range(3))))


def _took(step: Step, times: int) -> float:
    began = time.thread_time()
    for _ in range(times):
        step()
    return (time.thread_time() - began) / times


def _unit() -> dict[int, int]:
    """A fixed piece of Python, of about 5 us."""
    total: dict[int, int] = {}
    for number in range(100):
        total[number & 15] = total.get(number & 15, 0) + number
    return total


def text(measured: dict[str, float]) -> str:
    lines = [
        f"  {name:24} {units:6.2f} units of {BUDGETS[name]:6.2f}"
        for name, units in measured.items()
    ]
    unit_us = min(_took(_unit, 1000) for _ in range(5)) * 1e6
    return f"steps of a request (one unit is {unit_us:.2f} us here)\n" + "\n".join(lines) + "\n"
