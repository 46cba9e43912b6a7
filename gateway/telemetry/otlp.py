"""Spans as OTLP's bytes: ExportTraceServiceRequest, written field by field.

The SDK's way makes an object for every span, attribute and value, and cost as much as serving the
request did. Most attributes of a span say what the last request's said, so each of those is encoded
once and kept; a test decodes both ways and compares. Numbers below are the protocol's own.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from struct import Struct
from typing import Final

from opentelemetry.sdk.resources import Resource

from gateway.telemetry import names
from gateway.telemetry.spans import Attribute, Span

_KEPT: Final = 4096
_VARYING: Final = frozenset(  # seldom the same twice: kept, these would push out the others
    {
        *(names.REQUEST_ID, names.RESPONSE_ID, names.UPSTREAM_REQUEST_ID),
        *(names.OVERHEAD_SECONDS, names.FIRST_CHUNK_SECONDS, names.REQUEST_MAX_TOKENS),
        *(names.INPUT_TOKENS, names.OUTPUT_TOKENS, names.REASONING_TOKENS),
        *(names.CACHE_READ_TOKENS, names.CACHE_WRITE_TOKENS),
    }
)
_MASK: Final = (1 << 64) - 1
_NANOS_OF_A_MICRO: Final = 1000
_TIMES: Final = Struct("<BQBQ").pack
_DOUBLE: Final = Struct("<Bd").pack
_FLAGS: Final = b"\x85\x01\x00\x01\x00\x00"  # 16: whether the parent is remote is known; it is not
_REMOTE: Final = b"\x85\x01\x00\x03\x00\x00"  # it is
_UNSET: Final = b"\x7a\x00"  # 15: a status that says nothing
_ERROR: Final = b"\x7a\x02\x18\x02"


class Envelope:
    """What surrounds the spans of one process: who it is, and our scope."""

    def __init__(self, resource: Resource) -> None:
        here = b"".join(_field(1, _pair(k, v)) for k, v in resource.attributes.items())
        self._resource = _field(1, here)
        self._scope = _field(1, _field(1, names.SCOPE.encode()))
        self._schema = _field(3, resource.schema_url.encode()) if resource.schema_url else b""

    def body(self, traces: Iterable[tuple[int, list[Span]]]) -> bytes:
        """The request that delivers these spans, each list with the id of its trace."""
        return self.around(encoded(traces))

    def around(self, spans: bytes) -> bytes:
        """The request that delivers what `encoded` made, of one lot or of several."""
        return _field(1, self._resource + _field(2, self._scope + spans) + self._schema)


def encoded(traces: Iterable[tuple[int, list[Span]]]) -> bytes:
    """Spans in the middle of a request; lots of them may be put one behind the other."""
    return b"".join(
        _field(2, _span(trace_id.to_bytes(16, "big"), span))
        for trace_id, spans in traces
        for span in spans
    )


def _span(trace_id: bytes, span: Span) -> bytes:
    name, parent_id = span.name.encode(errors="replace"), span.parent_id
    return b"".join(
        (
            b"\x0a\x10%b\x12\x08%b" % (trace_id, span.span_id.to_bytes(8, "big")),
            b"\x22\x08" + parent_id.to_bytes(8, "big") if parent_id else b"",
            b"\x2a%b%b\x30%c" % (_varint(len(name)), name, span.kind),
            _TIMES(
                *(0x39, span.started_us * _NANOS_OF_A_MICRO),
                *(0x41, span.finished_us * _NANOS_OF_A_MICRO),
            ),
            _attributes(span.attributes),
            _ERROR if span.error else _UNSET,
            _REMOTE if span.parent_is_remote else _FLAGS,
        )
    )


def _attributes(attributes: Mapping[str, Attribute]) -> bytes:
    return b"".join(
        [
            # 0.0 and -0.0 are equal and differ; no attribute of ours is a fraction.
            _attribute(name, value)
            if name in _VARYING or isinstance(value, float)
            else _kept(name, value)
            for name, value in attributes.items()
        ]
    )


def _attribute(name: str, value: Attribute) -> bytes:
    return _field(9, _pair(name, value))


_kept: Final[Callable[[str, Attribute], bytes]] = lru_cache(_KEPT, typed=True)(_attribute)


def _pair(name: str, value: object) -> bytes:
    return _key(name) + _field(2, _value(value))


@lru_cache(_KEPT)
def _key(name: str) -> bytes:
    return _field(1, name.encode())


def _value(value: object) -> bytes:
    """One of the kinds an attribute may be."""
    if isinstance(value, str):
        return _field(1, value.encode(errors="replace"))
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return b"\x18" + _varint(value & _MASK)
    if isinstance(value, float):
        return _DOUBLE(0x21, value)
    if isinstance(value, list | tuple):
        return _field(5, b"".join(_field(1, _value(each)) for each in value))
    raise TypeError(f"an attribute cannot be a {type(value).__name__}")


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field; `number` is below 16."""
    size = len(content)
    if size < 0x80:
        return b"%c%c%b" % (number << 3 | 2, size, content)
    return b"%c%b%b" % (number << 3 | 2, _varint(size), content)


def _varint(number: int) -> bytes:
    groups = []
    while number >= 0x80:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)
