"""The only clock: wall time in microseconds UTC, and a monotonic one for durations."""

import time
from datetime import UTC, datetime
from typing import Final


def now_us() -> int:
    """Microseconds since the epoch, UTC."""
    return time.time_ns() // 1000


wall_ns: Final = time.time_ns
steady_ns: Final = time.monotonic_ns  # for the hot path, which asks a dozen times a request


def monotonic_us() -> int:
    """Microseconds of a clock that never jumps; only differences mean anything."""
    return time.monotonic_ns() // 1000


def rfc3339(at_us: int) -> str:
    """`2026-11-21T21:55:32.123456Z`; whole seconds carry no fraction."""
    seconds, micros = divmod(at_us, 1_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{micros:06d}Z" if micros else f"{text}Z"


def parse_rfc3339(text: str) -> int:
    """Microseconds since the epoch. ValueError unless the text carries an offset or `Z`."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"{text!r} has no offset; write it as 2026-11-01T00:00:00Z")
    delta = at.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86400 + delta.seconds) * 1_000_000 + delta.microseconds
