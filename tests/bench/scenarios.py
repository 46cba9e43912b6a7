"""What is asked of each subject, and what is read off it."""

import subprocess
import sys
from typing import Final

import msgspec

from tests.bench import machine
from tests.bench.load import Job, Result
from tests.bench.subjects import PATH, Subject

_PROMPT: Final = "Tell me about the house by the water. " * 48  # makes a request of about 2 KB


class Scenario(msgspec.Struct, frozen=True):
    name: str
    connections: int
    stream: bool = False
    delay_ms: int = 0
    text: str = _PROMPT


SCENARIOS: Final = (
    Scenario("json c=1", 1),
    Scenario("json c=32", 32),
    Scenario("stream c=8", 8, stream=True),
    Scenario("stream 10 ms c=4", 4, stream=True, delay_ms=10),
)


class Measurement(msgspec.Struct, frozen=True):
    """One subject in one scenario. CPU is in microseconds, None where it cannot be told."""

    subject: str
    scenario: str
    result: Result
    cpu_us_per_request: float | None
    cpu_us_per_chunk: float | None
    resident_mib: float | None

    @property
    def per_second(self) -> float:
        return self.result.requests / self.result.seconds


def job_of(subject: Subject, scenario: Scenario, seconds: float) -> Job:
    return Job(
        host="127.0.0.1",
        port=subject.port,
        path=PATH,
        headers=subject.headers,
        body=_body(scenario),
        stream=scenario.stream,
        connections=scenario.connections,
        warm_up_s=max(0.5, seconds / 6),
        seconds=seconds,
    )


def measure(subject: Subject, scenario: Scenario, seconds: float) -> Measurement:
    job = job_of(subject, scenario, seconds)
    command = [sys.executable, "-m", "tests.bench.load"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        machine.pin([process.pid], machine.cores()[1])
        machine.prefer([process.pid])
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("no pipes to the load")
        process.stdin.write(msgspec.json.encode(job) + b"\n")
        process.stdin.flush()
        process.stdout.readline()
        before = machine.cpu_seconds(subject.pids)
        line = process.stdout.readline()
        after = machine.cpu_seconds(subject.pids)
    result = msgspec.json.decode(line, type=Result)
    cpu_us = None if before is None or after is None else (after - before) * 1e6
    return Measurement(
        subject=subject.name,
        scenario=scenario.name,
        result=result,
        cpu_us_per_request=_share(cpu_us, result.requests),
        cpu_us_per_chunk=_share(cpu_us, result.chunks),
        resident_mib=machine.resident_mib(subject.pids),
    )


def _body(scenario: Scenario) -> str:
    text = f"#d={scenario.delay_ms} {scenario.text}" if scenario.delay_ms else scenario.text
    body: dict[str, object] = {
        "model": "bench",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 64,
    }
    if scenario.stream:
        body["stream"] = True
    return msgspec.json.encode(body).decode()


def _share(cpu_us: float | None, count: int) -> float | None:
    return None if cpu_us is None or not count else cpu_us / count
