"""Idempotency keys: what one is worth to the store, what is told to those who repeat one, and the
answers that a policy keeps for them.

The store learns neither the key nor anything of the body: it gets a hash of the one and, keyed by
it, of the other. A kept answer is sealed under this gateway's secret and the idempotency key
together, so it opens only for who has both.
"""

import asyncio
import os
import re
from hashlib import blake2b
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from litestar.types import Send

from gateway.dataplane.flow import Flow
from gateway.dataplane.reading import LARGE_BYTES
from gateway.dataplane.replies import EVENT_STREAM, JSON, ORIGINAL, Headers
from gateway.dataplane.transcript import Transcript
from gateway.stores.redis import keys
from gateway.stores.redis.holds import HoldStore, Keeping, Replay, Ticket
from policies.decision import Deny, DenyCode
from policies.idempotency import IN_FLIGHT, OTHER_BODY

HEADER: Final = "idempotency-key"
IN_FLIGHT_RETRY_MS: Final = 1_000
_WRITTEN: Final = re.compile(rb"[\x21-\x7e]{1,255}")
_BAD_KEY: Final = Deny(
    DenyCode.INVALID_REQUEST,
    f"{HEADER} must be 1 to 255 visible ASCII characters; a fresh UUID for each request does well",
    param=HEADER,
)
_NONCE: Final = 12


class Bounds(msgspec.Struct, frozen=True):
    """How long keys are remembered, how many of them, and how much of answers is kept."""

    ttl_ms: int
    most_keys: int  # of one application key at a time
    most_bytes: int  # of all kept answers of one shard


class _Answer(msgspec.Struct, frozen=True, array_like=True):
    """A kept answer in clear."""

    content_type: bytes
    region: str
    body: bytes


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Answer).decode


class Idempotency:
    """One a worker. `secret_key` has 32 bytes."""

    def __init__(self, holds: HoldStore, secret_key: bytes, bounds: Bounds) -> None:
        self._holds = holds
        self._secret_key = secret_key
        self._bounds = bounds

    async def present(self, flow: Flow, key: bytes) -> Deny | None:
        """Sets `flow.ticket`, and where a policy keeps answers, `flow.transcript`."""
        levels, principal, route = flow.levels, flow.principal, flow.route
        if levels is None or principal is None or route is None:
            raise RuntimeError("a ticket before the route")
        if not _WRITTEN.fullmatch(key):
            return _BAD_KEY
        if len(flow.body) > LARGE_BYTES:
            fingerprint = await asyncio.to_thread(_fingerprint, key, flow.operation, flow.body)
        else:
            fingerprint = _fingerprint(key, flow.operation, flow.body)
        flow.ticket = Ticket(
            index=keys.tickets(levels.tag, principal.key.id),
            name=blake2b(key, digest_size=16, person=b"mh ticket").hexdigest(),
            fingerprint=fingerprint,
            ttl_ms=self._bounds.ttl_ms,
            most=self._bounds.most_keys,
        )
        if route.policy.store_answers:
            flow.transcript = Transcript()
        return None

    def keep(self, flow: Flow) -> None:
        """Stores the answer, if it is whole, for as long as the policy says."""
        ticket, levels, route = flow.ticket, flow.levels, flow.route
        body = flow.transcript.body if flow.transcript is not None else None
        if body is None or ticket is None or levels is None or route is None:
            return
        request_id = flow.arrival.request_id
        last = flow.attempts[-1]
        streamed = flow.envelope is not None and flow.envelope.stream
        content_type = EVENT_STREAM if streamed else JSON
        answer = _Answer(content_type, last.way.candidate.region, body)
        keeping = Keeping(
            index=ticket.index,
            name=ticket.name,
            hold_id=request_id,
            ttl_ms=route.policy.keep_seconds * 1000,
            most_bytes=self._bounds.most_bytes,
            answer=self._seal(flow, _encode(answer)),
        )
        self._holds.keep(levels.tag, keeping)

    async def answer(self, flow: Flow, replay: Replay, send: Send) -> Deny | None:
        """What whoever repeats a key gets: the kept answer, or a Deny that says why not."""
        flow.original_id = replay.request_id
        kept = self._open(flow, replay) if replay.answer else None
        if kept is None:
            return refusal(replay)
        flow.status, flow.started_answer, flow.end_phase = 200, True, "done"
        headers: Headers = [
            (b"content-type", kept.content_type),
            (b"content-length", b"%d" % len(kept.body)),
            (b"x-request-id", flow.arrival.request_id.encode()),
            (b"x-meterhouse-replayed", b"1"),
            (ORIGINAL, replay.request_id.encode()),
            (b"x-meterhouse-backend-region", kept.region.encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": kept.body, "more_body": False})
        return None

    def _seal(self, flow: Flow, clear: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher(flow).encrypt(nonce, clear, flow.arrival.request_id.encode())

    def _open(self, flow: Flow, replay: Replay) -> _Answer | None:
        """None where another secret sealed it: then it is as if nothing had been kept."""
        nonce, sealed = replay.answer[:_NONCE], replay.answer[_NONCE:]
        try:
            return _decode(self._cipher(flow).decrypt(nonce, sealed, replay.request_id.encode()))
        except (InvalidTag, msgspec.DecodeError):
            return None

    def _cipher(self, flow: Flow) -> AESGCM:
        key = flow.arrival.idempotency_key or b""
        derived = blake2b(key, key=self._secret_key, digest_size=32, person=b"mh answer")
        return AESGCM(derived.digest())


def refusal(replay: Replay) -> Deny:
    """Why a repeated key is not served."""
    if replay.state == OTHER_BODY:
        return Deny(
            DenyCode.IDEMPOTENCY_MISMATCH,
            f"this {HEADER} came with another request, {replay.request_id}; a different request"
            " needs a key of its own",
            param=HEADER,
        )
    if replay.state == IN_FLIGHT:
        return Deny(
            DenyCode.IDEMPOTENCY_IN_FLIGHT,
            f"the request with this {HEADER}, {replay.request_id}, is still being served; wait for"
            " its answer, or ask again with the same key",
            param=HEADER,
            retry_after_ms=IN_FLIGHT_RETRY_MS,
        )
    return Deny(
        DenyCode.IDEMPOTENCY_FINISHED,
        f"the request with this {HEADER}, {replay.request_id}, is over and its answer is not"
        " stored; nothing was sent or billed now. To have it done again send a fresh key",
        param=HEADER,
    )


def _fingerprint(key: bytes, operation: str, body: bytes) -> str:
    salt = blake2b(key, digest_size=32, person=b"mh fingerprint").digest()
    digest = blake2b(body, key=salt, digest_size=16, person=operation.encode()[:16])
    return digest.hexdigest()
