"""A decision as facts: all that `decide` looked at and what it made of it, and no content.

The standing part (the policy in force, every candidate) is the same for thousands of requests. It
is kept once, under its digest; a decision names the digest. So a decision can be read, made again
and tried under another policy long after the configuration has moved on.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Final

import msgspec

from policies.ask import Ask
from policies.candidates import Candidate, Live
from policies.compile import EffectivePolicy
from policies.filters import RULES, Reason, Verdict

VERSION: Final = 1
DIGEST_BYTES: Final = 16

# The bit of each reason: a new one takes the next bit, none is ever used again for another.
_BITS: Final = {
    Reason.CAPABILITY: 1,
    Reason.CONTEXT: 2,
    Reason.RESIDENCY: 4,
    Reason.UNPRICED: 8,
    Reason.PRICE_CEILING: 16,
    Reason.REQUEST_CEILING: 32,
    Reason.PLACEMENT: 64,
    Reason.UNAVAILABLE: 128,
    Reason.SLO: 256,
    Reason.WINDOW: 512,
    Reason.DATA_CLASS: 1024,
    Reason.RESTING: 2048,
}


class DocumentRef(msgspec.Struct, frozen=True, array_like=True):
    """One version of one policy that was on the path of the key; versions never change."""

    scope_kind: str
    depth: int  # in the tree of scopes, as `compile_policies` takes it
    name: str
    policy_id: str
    policy_version: int


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What stands before any request: the same for all of one key, model and configuration."""

    v: int = VERSION
    model: str
    timezone: str  # of the tenant, in which documents tell the time of day
    documents: tuple[DocumentRef, ...]
    policy: EffectivePolicy
    bound: EffectivePolicy | None = None  # where another policy keeps it (`within`)
    shadow: bool = False  # of requests that are a shadow of another: kept by `for_shadow`
    candidates: tuple[Candidate, ...]
    gateway_jurisdictions: frozenset[str]


class Facts(msgspec.Struct, frozen=True, array_like=True):
    """One decision. What belongs to a candidate stands in the order of the standing's candidates.
    New fields go to the end, with a default.
    """

    v: int
    standing: bytes  # digest of the Standing
    decided_at_us: int
    ask: Ask
    draw: int
    seen: tuple[Live | None, ...]  # None: nothing was known of it
    against: tuple[int, ...]  # the reasons against each, as bits; 0: eligible
    order: tuple[int, ...]  # the candidates of the plan, best first
    refusal: str = ""  # the code, where there was no plan or it could not be paid
    degraded_from: str = ""  # the model that was asked for, where another one serves
    usual_tokens: int = 0  # the estimate that documents compare, where any asks for a size
    experiment: str = ""  # that gave it the model it has
    hedged: int | None = None  # the number of the attempt that was begun beside a slow one
    shadow: str = ""  # the request that was begun as a shadow of this one
    shadow_of: str = ""  # the request that this one is a shadow of
    afforded: tuple[int, ...] = ()  # the candidates it was kept to, where no budget covered `order`
    unhedged: str | None = None  # `hedging.WHY_NOT`, where one was due; None: older than the field


class Record(msgspec.Struct, frozen=True, array_like=True):
    """A decision with whose it was: what is sealed. Attribution comes from the key alone. New
    fields go to the end, with a default.
    """

    request_id: str
    tenant_id: str
    team_path: tuple[str, ...]
    key_id: str
    tags: dict[str, str]  # what the client says; documents may ask for them
    facts: Facts


ENCODER: Final = msgspec.msgpack.Encoder(order="deterministic")
_PACK: Final = msgspec.msgpack.Encoder().encode  # once written, nobody asks for the order of a set
DECODER: Final = msgspec.msgpack.Decoder(Facts)
RECORDS: Final = msgspec.msgpack.Decoder(Record)
STANDINGS: Final = msgspec.msgpack.Decoder(Standing)


class Recorder:
    """Makes facts of the decisions of one panel. Belongs to the panel's owner."""

    def __init__(self, standing: Standing) -> None:
        self._standing = standing
        self._places = [(c.backend_id, c.upstream_model) for c in standing.candidates]
        self._index = {place: at for at, place in enumerate(self._places)}
        self._judged: Sequence[Verdict] = ()  # last, which are mostly the panel's own, and
        self._against: tuple[int, ...] = ()  # the reasons that these give

    @cached_property
    def packed(self) -> bytes:
        """The standing as it is kept."""
        return ENCODER.encode(self._standing)

    @cached_property
    def digest(self) -> bytes:
        return digest_of(self.packed)

    def facts(  # noqa: PLR0913, PLR0917 - what a decision is made of
        self,
        ask: Ask,
        live: Mapping[tuple[str, str], Live],
        verdicts: Sequence[Verdict],
        attempts: Sequence[Candidate],
        draw: int,
        decided_at_us: int,
        refusal: str = "",
        degraded_from: str = "",
        usual_tokens: int = 0,
        experiment: str = "",
    ) -> bytes:
        """The decision, packed at once: what is seen live changes with the next request."""
        if verdicts is not self._judged:
            against = [bits_of(v.reasons) if v.reasons else 0 for v in verdicts]
            self._judged, self._against = verdicts, tuple(against)
        index = self._index
        return _PACK(
            Facts(
                VERSION,
                self.digest,
                decided_at_us,
                ask,
                draw,
                tuple(map(live.get, self._places)),
                self._against,
                tuple([index[c.backend_id, c.upstream_model] for c in attempts]),
                refusal,
                degraded_from,
                usual_tokens,
                experiment,
                unhedged="",
            )
        )


def refused(packed: bytes, code: str) -> bytes:
    """The same decision, where what it planned could not be admitted."""
    return _PACK(msgspec.structs.replace(DECODER.decode(packed), refusal=code))


def hedged(packed: bytes, attempt: int) -> bytes:
    """The same decision, once a slow attempt has got the one of this number beside it."""
    return _PACK(msgspec.structs.replace(DECODER.decode(packed), hedged=attempt))


def unhedged(packed: bytes, why: str) -> bytes:
    """The same decision, where a slow attempt got none beside it: a word of `hedging.WHY_NOT`."""
    return _PACK(msgspec.structs.replace(DECODER.decode(packed), unhedged=why))


def afforded(packed: bytes, places: tuple[int, ...]) -> bytes:
    """The same decision, kept to these candidates, for no budget covered the dearer ones."""
    return _PACK(msgspec.structs.replace(DECODER.decode(packed), afforded=places))


def shadowed(packed: bytes, request_id: str) -> bytes:
    """The same decision, once a shadow of its request, of this id, is under way."""
    return _PACK(msgspec.structs.replace(DECODER.decode(packed), shadow=request_id))


def shadowing(packed: bytes, request_id: str) -> bytes:
    """The same decision, on a request that is a shadow of the one of this id."""
    return _PACK(msgspec.structs.replace(DECODER.decode(packed), shadow_of=request_id))


def live_of(standing: Standing, facts: Facts) -> dict[tuple[str, str], Live]:
    """What was seen, as `decide` takes it."""
    return {
        (candidate.backend_id, candidate.upstream_model): seen
        for candidate, seen in zip(standing.candidates, facts.seen, strict=True)
        if seen is not None
    }


def digest_of(packed: bytes) -> bytes:
    """The name of a standing: nothing else has it."""
    return hashlib.sha256(packed).digest()[:DIGEST_BYTES]


def bits_of(reasons: tuple[Reason, ...]) -> int:
    return sum(_BITS[reason] for reason in reasons)


def reasons_of(bits: int) -> tuple[Reason, ...]:
    """In the order of the rules."""
    return tuple(reason for reason, _rule in RULES if bits & _BITS[reason])
