"""The clients of an open loop: a request is due so many times a second, whatever becomes of those
before it, and its latency counts from the moment it was due.

Runs as a process of its own: a `Job` as JSON on standard input, a `Result` on standard output. It
waits in `select`, whose timeouts are microseconds; those of an event loop are milliseconds.
"""

import re
import select
import socket
import sys
import time
from collections import deque
from typing import Final

import msgspec

from tests.bench.load import Spread, spread

_LENGTH: Final = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_LATE_NS: Final = 30_000_000_000  # after the end, for the last answers


class Job(msgspec.Struct, frozen=True):
    host: str
    port: int
    request: bytes
    connections: int
    per_second: float
    warm_up_s: float
    seconds: float


class Result(msgspec.Struct, frozen=True):
    """`behind`: how many were due and found every connection busy, at most at a time."""

    requests: int
    failures: int
    behind: int
    latency: Spread


class Client:
    """One connection, with one request at a time."""

    def __init__(self, job: Job) -> None:
        self.socket = socket.create_connection((job.host, job.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = job.request
        self._got = b""
        self._whole = 0  # bytes of the answer; 0 before its head is here
        self.due_ns = 0

    def fileno(self) -> int:
        return self.socket.fileno()

    def ask(self, due_ns: int) -> None:
        self.due_ns, self._got, self._whole = due_ns, b"", 0
        self.socket.sendall(self._request)

    def answered(self) -> bool | None:
        """After something has come: None while it is not whole, then whether it is a 200."""
        piece = self.socket.recv(1 << 16)
        if not piece:
            raise ConnectionError("the connection was lost")
        self._got += piece
        if not self._whole:
            head, found, _ = self._got.partition(b"\r\n\r\n")
            if not found:
                return None
            length = _LENGTH.search(head)
            self._whole = len(head) + 4 + (int(length[1]) if length else 0)
        return self._got.startswith(b"HTTP/1.1 200") if len(self._got) >= self._whole else None


def drive(job: Job) -> Result:
    step_ns = int(1e9 / job.per_second)
    idle = [Client(job) for _ in range(job.connections)]
    asked: dict[int, Client] = {}
    waiting: deque[int] = deque()
    latency_ns: list[int] = []
    failures = behind = 0
    due_ns = time.monotonic_ns()
    counted_ns = due_ns + int(job.warm_up_s * 1e9)
    end_ns = counted_ns + int(job.seconds * 1e9)
    while (now_ns := time.monotonic_ns()) < end_ns or asked or waiting:
        if now_ns > end_ns + _LATE_NS:
            raise RuntimeError("answers are missing")
        while due_ns <= min(now_ns, end_ns):
            waiting.append(due_ns)
            due_ns += step_ns
        while waiting and idle:
            client = idle.pop()
            client.ask(waiting.popleft())
            asked[client.fileno()] = client
        behind = max(behind, len(waiting))
        wait_s = max(0, (due_ns if due_ns <= end_ns else end_ns) - time.monotonic_ns()) / 1e9
        ready, _, _ = select.select(list(asked), [], [], wait_s if now_ns < end_ns else 1.0)
        for number in ready:
            if (well := asked[number].answered()) is None:
                continue
            client = asked.pop(number)
            if client.due_ns >= counted_ns:
                latency_ns.append(time.monotonic_ns() - client.due_ns)
                failures += not well
            idle.append(client)
    return Result(len(latency_ns), failures, behind, spread(latency_ns))


if __name__ == "__main__":
    told = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    sys.stdout.write(msgspec.json.encode(drive(told)).decode() + "\n")
