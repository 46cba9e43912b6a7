"""What came in before the body: identity, headers we read, the time. Parsed once, in one pass."""

import re
from typing import Any, Final

import msgspec

from gateway import clock, ids
from policies.decision import Deny, DenyCode

MAX_TAGS: Final = 8
_TAG_NAME: Final = re.compile(r"[a-z0-9_.-]{1,32}")
_TAG_VALUE: Final = re.compile(r"[\x20-\x7e]{1,64}")


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """One request's head. Header values are bytes as sent; absent is empty."""

    request_id: str
    arrived_us: int
    clock_offset_ns: int  # wall minus monotonic, so that every time of the request is on one scale
    secret: bytes
    content_length: int  # -1: not declared
    content_encoding: bytes
    traceparent: bytes
    tags: bytes
    explain: bool
    client_host: str
    idempotency_key: bytes | None = None  # an empty one was sent, and is refused
    repeated: str = ""  # a header that was sent more than once: which one counts is anybody's guess

    def now_us(self) -> int:
        """Wall time that cannot run backwards during this request."""
        return (clock.steady_ns() + self.clock_offset_ns) // 1000


def read_head(scope: Any) -> Arrival:
    """The head of an ASGI HTTP scope."""
    sent = scope["headers"]
    found = {name: value for name, value in sent}  # noqa: C416 - dict() takes pairs twice as long
    repeated = "" if len(found) == len(sent) else _repeated(sent, found)
    header = found.get
    wall_ns = clock.wall_ns()
    length = header(b"content-length", b"")
    client = scope.get("client")
    return Arrival(
        ids.new("req"),
        wall_ns // 1000,
        wall_ns - clock.steady_ns(),
        _secret(found),
        int(length) if length.isdigit() else -1,
        header(b"content-encoding", b""),
        header(b"traceparent", b""),
        header(b"x-meterhouse-tags", b""),
        header(b"x-meterhouse-explain") == b"1",
        client[0] if client else "",
        header(b"idempotency-key"),
        repeated,
    )


_READ: Final = frozenset(
    (
        b"authorization",
        b"x-api-key",
        b"content-length",
        b"content-encoding",
        b"traceparent",
        b"x-meterhouse-tags",
        b"x-meterhouse-explain",
        b"idempotency-key",
    )
)


def _repeated(sent: list[tuple[bytes, bytes]], found: dict[bytes, bytes]) -> str:
    """The name of a header that occurs twice; a `traceparent` that does is dropped, as W3C asks."""
    names = [name for name, _ in sent if name in _READ]
    if names.count(b"traceparent") > 1:
        del found[b"traceparent"]
    return next((name.decode() for name in names if names.count(name) > 1 and name in found), "")


def _secret(found: dict[bytes, bytes]) -> bytes:
    given = found.get(b"authorization", b"")
    if given[:7].lower() == b"bearer ":
        return given[7:].strip()
    return found.get(b"x-api-key", b"").strip()


def parse_tags(header: bytes, allowed: tuple[str, ...] | None) -> dict[str, str] | Deny:
    """`k=v,k=v`: at most 8; names and values bounded; a tenant may restrict the names."""
    if not header:
        return {}
    tags: dict[str, str] = {}
    for pair in header.decode("latin-1").split(","):
        name, _, value = pair.strip().partition("=")
        if not (_TAG_NAME.fullmatch(name) and _TAG_VALUE.fullmatch(value)):
            return _bad_tags("write it as name=value with a name of [a-z0-9_.-]{1,32}")
        if allowed is not None and name not in allowed:
            return _bad_tags(
                f"{name!r} is not one of this tenant's tag names: {', '.join(allowed)}"
            )
        if name in tags:
            return _bad_tags(f"{name!r} is given twice")
        tags[name] = value
    if len(tags) > MAX_TAGS:
        return _bad_tags(f"at most {MAX_TAGS} tags")
    return tags


def _bad_tags(remedy: str) -> Deny:
    return Deny(DenyCode.INVALID_REQUEST, f"x-meterhouse-tags: {remedy}", param="x-meterhouse-tags")
