"""What is said to and by the store about limits and holds, and what it keeps for one tag."""

from collections.abc import Mapping
from typing import Final

import msgspec

from policies.accounts import Account, Balance
from policies.idempotency import Ticket, Tickets
from policies.limits import Gate, Slot

MAX_COUNTER: Final = 2**53 - 1  # the scripts' numbers are exact up to here
MAX_TOKENS: Final = 2**32
MAX_CHOICES: Final = 2**16
MAX_UNIT_PRICE: Final = 2**37  # x MAX_CHOICES is still exact
MAX_LEVELS: Final = 64  # of each kind; a script's arguments are bounded
MAX_STOOD_ON: Final = 1024  # accounts of a hold, with those that were opened while it lives


class Admission(msgspec.Struct, frozen=True, array_like=True):
    """One request before the store: what it may cost at most, and every level that must agree.

    The hold on an account is `input + choices x grant x output` in the account's unit, where one
    output token counts `output_money` counter units, or one token. `wanted` and `least` are output
    tokens per choice; `least == wanted` refuses rather than clamps. `meta` is kept with the hold.
    `owner` names the spool that would have evidence of what became of it. With a `ticket` it is in
    only if nobody else has that. `firm` takes what there is beside leases; otherwise it is not in
    at all where these would narrow it. ValueError for figures beyond which the scripts would no
    longer be exact.
    """

    hold_id: str
    ttl_ms: int
    input_money: int
    output_money: int  # per token
    input_tokens: int
    wanted: int
    least: int
    choices: int
    gates: tuple[Gate, ...]
    slots: tuple[Slot, ...]
    accounts: tuple[Account, ...]
    meta: bytes = b""
    owner: str = ""
    ticket: Ticket | None = None
    firm: bool = False

    def __post_init__(self) -> None:
        if not (
            0 <= self.least <= self.wanted <= MAX_TOKENS
            and 0 < self.choices <= MAX_CHOICES
            and 0 <= self.output_money <= MAX_UNIT_PRICE
            and self.input_money >= 0
            and self.input_money + self.choices * self.least * self.output_money <= MAX_COUNTER
            and 0 <= self.input_tokens <= MAX_TOKENS
            and len(self.gates) <= MAX_LEVELS
            and len(self.slots) <= MAX_LEVELS
            and len(self.accounts) <= MAX_STOOD_ON
        ):
            raise ValueError(f"figures out of range in the admission of {self.hold_id}")


class Granted(msgspec.Struct, frozen=True):
    """The request is in on every level. `output_tokens` per choice is all it may generate.

    `remaining` is what each account has left after this hold, never below zero, NO_CAP where
    nothing is capped; `gate_wait_us` is how far each gate's `tat` lies ahead of now.
    """

    output_tokens: int
    held_money: int
    now_ms: int
    remaining: tuple[int, ...]
    gate_wait_us: tuple[int, ...]
    duplicate: bool  # this hold id was in already; nothing was written


class Refused(msgspec.Struct, frozen=True):
    """The request is in on no level. `index` points into the gates, slots or accounts asked for."""

    # rate | concurrency | budget | leased | stale_window | spent | tickets | unopened
    reason: str
    index: int
    retry_after_ms: int
    now_ms: int
    available: int = 0  # budget: output tokens per choice that would have fitted
    left: int = 0  # budget: of that account, in its unit, before this request
    unheld: bool = False  # budget: it would be in if nothing else were held


class Reaping(msgspec.Struct, frozen=True, array_like=True):
    """Under which conditions somebody else than its owner may end a hold: its expiry passed
    `late_ms` ago, and the lease bears this token.
    """

    late_ms: int
    lease: str
    token: str


class Settlement(msgspec.Struct, frozen=True, array_like=True):
    """What became of a hold: posted on every account instead of it, with its journal entry.

    With `reaping` it changes nothing, the journal included, unless the hold is there and overdue.
    `unprocessed`: no backend did any work for it, so its ticket is given back. `unheld`: it was
    admitted without the store, and is posted on these accounts, once however often it is sent.
    `leases`, where any paid for it, stand beside them; an empty id: none on that account.
    """

    hold_id: str
    money: int
    tokens: int
    gate_corrections: tuple[tuple[str, int], ...] = ()  # (gate key, delta_us)
    event: bytes | None = None
    reaping: Reaping | None = None
    unprocessed: bool = False
    unheld: tuple[Account, ...] = ()
    leases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (0 <= self.money <= MAX_COUNTER and 0 <= self.tokens <= MAX_COUNTER):
            raise ValueError(f"figures out of range in the settlement of {self.hold_id}")


class Hold(msgspec.Struct, frozen=True):
    """A hold as the store keeps it."""

    grant: int
    admitted_at_ms: int
    admission: Admission


class Lease(msgspec.Struct, frozen=True):
    """So much of one account may be spent by whoever has it, without asking."""

    account: str  # its key
    amount: int
    expiry_ms: int


class State(msgspec.Struct, frozen=True):
    """Everything the scripts keep for one tag. `holds[id] is None`: the id is spent. What was
    spent before `since_ms` is on no account that was not opened with it. `cut` is the token of a
    recount under way.
    """

    gates: Mapping[str, int] = {}
    slots: Mapping[str, Mapping[str, int]] = {}
    accounts: Mapping[str, Balance] = {}
    holds: Mapping[str, Hold | None] = {}
    expiries_ms: Mapping[str, int] = {}
    leases: Mapping[str, str] = {}  # lease -> the token of its holder
    journal: tuple[tuple[bytes, bool], ...] = ()  # (event, do the counters know it)
    tickets: Tickets = Tickets()
    since_ms: int = 0
    cut: str = ""
    posted: frozenset[str] = frozenset()  # ids that are on the counters, whatever comes after
    lent: Mapping[str, Lease] = {}
