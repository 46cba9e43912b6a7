"""One attempt's usage, as it travels: spool -> journal -> ledger. Release N reads N-1."""

from typing import Final

import msgspec
from msgspec.structs import force_setattr

from billing.meters import Meters, Provenance
from billing.prices import RateCard

VERSION: Final = 1
_CARDS: Final = ("charge_card", "cost_card")
# Of a hold that left no evidence nobody can tell which attempt it paid for: its estimate is this
# one's, and gives way to whatever becomes known of the request. Real ones are numbered from 0.
UNKNOWN_ATTEMPT: Final = -1


class UsageEvent(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Everything the ledger needs of one attempt that may have reached a backend.

    `event_id` is unique for ever (`{request_id}:{attempt}`); amounts are whole picos of `currency`,
    already rated with the prices frozen at admission. Times are microseconds since the epoch, UTC.
    New fields go to the end, with a default.
    """

    v: int
    event_id: str
    request_id: str
    attempt: int
    winner: bool  # the attempt the client was answered from; only it is charged (L5)
    tenant_id: str
    team_path: tuple[str, ...]  # team ids from the outermost to the key's own team
    key_id: str
    model: str  # what the client asked for
    backend_id: str
    upstream_model: str
    region: str
    operation: str  # chat | completions | embeddings
    stream: bool
    admitted_at_us: int
    finished_at_us: int
    ttft_us: int  # from dispatch to the first byte of content; -1 when none came
    duration_us: int  # from dispatch to the end
    usage: Meters  # what is billed
    provenance: Provenance
    reported: Meters | None  # what the backend said
    counted: Meters | None  # what we counted
    reasoning: int  # reported reasoning tokens, inside usage.output; information only
    currency: str
    charge_card: RateCard
    cost_card: RateCard | None
    charge_picos: int  # 0 for an attempt that did not win
    cost_picos: int  # 0 when no cost price is known
    counter_nanos: int  # what was posted to each Redis budget counter (counter units, rounded up)
    status: int  # HTTP status the client saw; 499 when it hung up first
    end_by: str  # client | upstream | gateway | limit
    end_phase: str  # connect | ttfb | stream | done
    tags: dict[str, str]
    # settled | absent (journal only, no counter was touched) | estimated | reversed (an estimate
    # taken back: every figure negative)
    hold: str = "settled"
    # What `policies.facts` makes of the decision behind the request, packed; with the event that
    # ends its hold, or may. Opaque here, and none of the ledger's business but to keep it.
    decision: bytes = b""
    standing: bytes = b""  # what that decision refers to, until the ledger is known to have it
    shadow_of: str = ""  # the request that this one was sent a second time for, by another's wish
    # Whom of the app's own users it was for. A keyed hash on its way, `gateway.pseudonyms` makes
    # it; in the ledger an id that was drawn for it. None: nobody said so, or nothing is kept of it.
    end_user: str | None = None
    # Of `billing.service_tiers`; all None where the standard tier was asked for and served.
    service_tier: str | None = None  # whose prices the charge is made of
    tier_asked: str | None = None  # a tier, or `auto`
    tier_served: str | None = None  # in the backend's own word; None: it said nothing


ENCODER: Final = msgspec.msgpack.Encoder()
DECODER: Final = msgspec.msgpack.Decoder(UsageEvent)


class Cards:
    """The cards of one delivery: there are few, and each event comes with copies of its own."""

    def __init__(self) -> None:
        self._met: dict[str, RateCard] = {}

    def share(self, event: UsageEvent) -> None:
        """For an event that was just read and nobody else has. A namesake that differs stays."""
        for name in _CARDS:
            card = getattr(event, name)
            if card is not None:
                met = self._met.setdefault(card.id, card)
                if met is not card and met == card:
                    force_setattr(event, name, met)


def blank(  # noqa: PLR0913 - what an event says of its price and its place
    *,
    tenant_id: str,
    team_path: tuple[str, ...],
    key_id: str,
    model: str,
    backend_id: str,
    upstream_model: str,
    region: str,
    currency: str,
    charge_card: RateCard,
    cost_card: RateCard | None,
) -> UsageEvent:
    """What all events of one key at one place have in common; nothing has happened in it yet."""
    return UsageEvent(
        v=VERSION,
        event_id="",
        request_id="",
        attempt=0,
        winner=True,
        tenant_id=tenant_id,
        team_path=team_path,
        key_id=key_id,
        model=model,
        backend_id=backend_id,
        upstream_model=upstream_model,
        region=region,
        operation="",
        stream=False,
        admitted_at_us=0,
        finished_at_us=0,
        ttft_us=-1,
        duration_us=0,
        usage=Meters(),
        provenance=Provenance.ESTIMATED,
        reported=None,
        counted=None,
        reasoning=0,
        currency=currency,
        charge_card=charge_card,
        cost_card=cost_card,
        charge_picos=0,
        cost_picos=0,
        counter_nanos=0,
        status=0,
        end_by="",
        end_phase="",
        tags={},
    )
