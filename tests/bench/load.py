"""The clients of the bench: a closed loop of connections, each with one request at a time.

Runs as a process of its own: a `Job` as JSON on standard input, a `Result` on standard output.
"""

import asyncio
import re
import sys
import time
from typing import Final

import msgspec
import uvloop

_STAMP: Final = re.compile(rb"@(\d{6,})@")
_LENGTH: Final = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_END_OF_CHUNKS: Final = b"0\r\n\r\n"


class Job(msgspec.Struct, frozen=True):
    host: str
    port: int
    path: str
    headers: dict[str, str]
    body: str
    stream: bool
    connections: int
    warm_up_s: float
    seconds: float


class Spread(msgspec.Struct, frozen=True):
    """Percentiles in microseconds."""

    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    most: float = 0.0


class Result(msgspec.Struct, frozen=True):
    """`measured_from` and `measured_to` are monotonic seconds, for whoever reads CPU time."""

    requests: int
    failures: int
    seconds: float
    chunks: int
    latency: Spread
    first_chunk: Spread
    chunk_delay: Spread
    first_failure: str = ""


class Figures:
    """What all connections add to."""

    def __init__(self, measure_from_ns: int) -> None:
        self.measure_from_ns = measure_from_ns
        self.requests = 0
        self.failures = 0
        self.first_failure = ""
        self.latency_ns: list[int] = []
        self.first_chunk_ns: list[int] = []
        self.chunk_delay_ns: list[int] = []


class Client(asyncio.Protocol):
    """Sends the same request again as soon as its answer is whole."""

    def __init__(self, request: bytes, figures: Figures) -> None:
        self._request = request
        self._figures = figures
        self._tail = b""
        self._head = b""
        self._missing = 0
        self._started = 0
        self._seen = False  # whether this answer has brought a chunk yet

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._transport.is_closing():
            self._fail(b"the connection was lost")

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if not self._head:
            head, found, data = (self._tail + data).partition(b"\r\n\r\n")
            if not found:
                self._tail = head
                return
            self._begin(head)
        self._note_stamps(data, now)
        self._missing -= len(data)
        self._tail = (self._tail + data)[-256:]
        if self._missing == 0 or (self._missing < 0 and self._tail.endswith(_END_OF_CHUNKS)):
            self._finish(now)

    def _begin(self, head: bytes) -> None:
        self._head, self._tail = head, b""
        length = _LENGTH.search(head)
        self._missing = int(length[1]) if length else -1

    def _note_stamps(self, data: bytes, now: int) -> None:
        if self._started < self._figures.measure_from_ns:
            return
        for stamp in _STAMP.findall(data):
            if not self._seen:
                self._seen = True
                self._figures.first_chunk_ns.append(now - self._started)
            self._figures.chunk_delay_ns.append(now - int(stamp))

    def _finish(self, now: int) -> None:
        if self._started >= self._figures.measure_from_ns:
            self._figures.requests += 1
            self._figures.latency_ns.append(now - self._started)
        if not self._head.startswith(b"HTTP/1.1 200"):
            self._fail(self._head.partition(b"\r\n")[0] + b" " + self._tail)
        self._send()

    def _fail(self, why: bytes) -> None:
        self._figures.failures += 1
        if not self._figures.first_failure:
            self._figures.first_failure = why.decode("utf-8", "replace")

    def _send(self) -> None:
        self._head = self._tail = b""
        self._seen = False
        self._started = time.monotonic_ns()
        self._transport.write(self._request)


async def drive(job: Job) -> Result:
    loop = asyncio.get_running_loop()
    began = time.monotonic_ns()
    figures = Figures(began + int(job.warm_up_s * 1e9))
    request = request_of(job)
    transports = [
        (await loop.create_connection(lambda: Client(request, figures), job.host, job.port))[0]
        for _ in range(job.connections)
    ]
    await asyncio.sleep(job.warm_up_s)
    print("measuring", flush=True)
    await asyncio.sleep(job.seconds)
    seconds = (time.monotonic_ns() - figures.measure_from_ns) / 1e9
    for transport in transports:
        transport.abort()
    return Result(
        requests=figures.requests,
        failures=figures.failures,
        seconds=seconds,
        chunks=len(figures.chunk_delay_ns),
        latency=spread(figures.latency_ns),
        first_chunk=spread(figures.first_chunk_ns),
        chunk_delay=spread(figures.chunk_delay_ns),
        first_failure=figures.first_failure,
    )


def request_of(job: Job) -> bytes:
    body = job.body.encode()
    headers = {
        "host": f"{job.host}:{job.port}",
        "content-type": "application/json",
        "content-length": str(len(body)),
    } | job.headers
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {job.path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def spread(values_ns: list[int]) -> Spread:
    if not values_ns:
        return Spread()
    ordered = sorted(values_ns)

    def at(share: float) -> float:
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] / 1000

    return Spread(at(0.5), at(0.9), at(0.99), ordered[-1] / 1000)


if __name__ == "__main__":
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    sys.stdout.write(msgspec.json.encode(uvloop.run(drive(job))).decode() + "\n")
