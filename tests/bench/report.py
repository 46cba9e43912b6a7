"""The tables: figures of each subject, and how the gateway compares within the same run."""

from collections.abc import Iterable, Sequence
from statistics import median

from tests.bench.scenarios import SCENARIOS, Measurement

_HEAD = ("subject", "requests/s", "CPU us", "p50 us", "p99 us", "added p50", "RSS MiB")
_STREAM_HEAD = (
    *("subject", "streams/s", "CPU us/chunk", "first p50", "added first", "chunk p50"),
    *("chunk p99", "RSS MiB"),
)


def text(measurements: Sequence[Measurement]) -> str:
    """Medians over the rounds. `direct` is the floor: the backend with nobody in between."""
    parts = []
    for scenario in SCENARIOS:
        rounds = [m for m in measurements if m.scenario == scenario.name]
        names = list(dict.fromkeys(m.subject for m in rounds))
        rows = [(_stream_row if scenario.stream else _row)(name, rounds) for name in names]
        head = _STREAM_HEAD if scenario.stream else _HEAD
        parts.append(f"{scenario.name}\n" + _table([head, *rows]) + _ratios(rounds, names))
    return "\n".join(parts) + _failures(measurements)


def _row(name: str, rounds: Sequence[Measurement]) -> tuple[str, ...]:
    ours = [m for m in rounds if m.subject == name]
    p50 = median(m.result.latency.p50 for m in ours)
    return (
        name,
        _figure(median(m.per_second for m in ours)),
        _figure(_median(m.cpu_us_per_request for m in ours)),
        _figure(p50),
        _figure(median(m.result.latency.p99 for m in ours)),
        _figure(p50 - median(m.result.latency.p50 for m in rounds if m.subject == "direct")),
        _figure(_median(m.resident_mib for m in ours)),
    )


def _stream_row(name: str, rounds: Sequence[Measurement]) -> tuple[str, ...]:
    ours = [m for m in rounds if m.subject == name]
    first = median(m.result.first_chunk.p50 for m in ours)
    return (
        name,
        _figure(median(m.per_second for m in ours)),
        _figure(_median(m.cpu_us_per_chunk for m in ours), 1),
        _figure(first),
        _figure(first - median(m.result.first_chunk.p50 for m in rounds if m.subject == "direct")),
        _figure(median(m.result.chunk_delay.p50 for m in ours)),
        _figure(median(m.result.chunk_delay.p99 for m in ours)),
        _figure(_median(m.resident_mib for m in ours)),
    )


def _ratios(rounds: Sequence[Measurement], names: Sequence[str]) -> str:
    """What the gateway's work costs, as ratios that hold on other machines too."""
    if "gateway" not in names:
        return ""
    lines = []
    for other in ("pass-through", "nginx"):
        if other not in names:
            continue
        speed = _over(rounds, other, "per_second")
        cpu = _over(rounds, other, "cpu_us_per_request")
        lines.append(f"  gateway / {other}: {speed} of its requests/s, {cpu} times its CPU")
    return "\n".join(lines) + "\n" if lines else ""


def _over(rounds: Sequence[Measurement], other: str, field: str) -> str:
    ours = _median(getattr(m, field) for m in rounds if m.subject == "gateway")
    theirs = _median(getattr(m, field) for m in rounds if m.subject == other)
    return "-" if ours is None or not theirs else f"{ours / theirs:.2f}"


def _failures(measurements: Sequence[Measurement]) -> str:
    lines = [
        f"  {m.subject}, {m.scenario}: {m.result.failures} failed, first: {m.result.first_failure}"
        for m in measurements
        if m.result.failures
    ]
    return "\nFAILURES\n" + "\n".join(lines) + "\n" if lines else ""


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _figure(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "".join(
        "  "
        + "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + "\n"
        for row in rows
    )
