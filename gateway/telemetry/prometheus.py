"""Prometheus text (version 0.0.4) of merged families."""

import re
from collections.abc import Iterator
from typing import Final

from gateway.telemetry.metrics import COUNTER, HISTOGRAM, FamilyValues, Labels

CONTENT_TYPE: Final = "text/plain; version=0.0.4"  # the server adds the charset
_NOT_IN_A_NAME: Final = re.compile(r"[^a-zA-Z0-9_]")
_UNITS: Final = {"s": "seconds", "By": "bytes", "1": "ratio"}
_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def render(families: list[FamilyValues]) -> bytes:
    """One block a family; a label without a value is left out, as Prometheus means it."""
    return "".join(line + "\n" for values in families for line in _block(values)).encode()


def metric_name(name: str, unit: str, kind: str) -> str:
    """`http.server.request.duration` in `s` is `http_server_request_duration_seconds`."""
    text = _NOT_IN_A_NAME.sub("_", name)
    suffix = _UNITS.get(unit, "")
    if suffix and not text.endswith("_" + suffix):
        text = f"{text}_{suffix}"
    return f"{text}_total" if kind == COUNTER else text


def _block(values: FamilyValues) -> Iterator[str]:
    family = values.family
    if not values.rows:
        return
    name = metric_name(family.names[0], family.unit, family.kind)
    kind = family.kind if family.kind in {COUNTER, HISTOGRAM} else "gauge"
    yield f"# HELP {name} {family.help}"
    yield f"# TYPE {name} {kind}"
    keys = tuple(_NOT_IN_A_NAME.sub("_", label) for label in family.labels)
    edges = [_number(bound, family.divisor) for bound in family.bounds]
    for labels, cells in sorted(values.rows):
        pairs = _pairs(keys, labels)
        if family.kind == HISTOGRAM:
            yield from _histogram(name, pairs, edges, cells, family.divisor)
        else:
            yield f"{name}{_braced(pairs)} {_number(cells[0], family.divisor)}"


def _histogram(
    name: str, pairs: list[str], edges: list[str], cells: list[int], divisor: int
) -> Iterator[str]:
    running = 0
    for edge, count in zip([*edges, "+Inf"], cells[1:], strict=True):
        running += count
        bucket = _braced([*pairs, f'le="{edge}"'])
        yield f"{name}_bucket{bucket} {running}"
    yield f"{name}_sum{_braced(pairs)} {_number(cells[0], divisor)}"
    yield f"{name}_count{_braced(pairs)} {running}"


def _pairs(keys: tuple[str, ...], labels: Labels) -> list[str]:
    return [
        f'{key}="{value.translate(_ESCAPES)}"'
        for key, value in zip(keys, labels, strict=True)
        if value
    ]


def _braced(pairs: list[str]) -> str:
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _number(value: int, divisor: int) -> str:
    """Whole numbers without a point, all others as the shortest text that reads back equal."""
    whole, rest = divmod(value, divisor)
    return str(whole) if not rest else repr(value / divisor)
