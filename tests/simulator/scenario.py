"""What one simulated world is made of: how many of whom, and which faults strike how often."""

from enum import StrEnum
from random import Random
from typing import Final

import msgspec


class Fault(StrEnum):
    """Everything that can go wrong here. The value is the word in tables and traces."""

    # a message between a process and the store, the ledger or a backend
    LOST = "lost"  # never arrives
    UNKNOWN = "applied, then an error"
    TWICE = "delivered twice"
    LATE = "late"  # arrives long after its sender gave up
    # a process
    KILL = "killed"
    STOP = "stopped for a while"  # SIGSTOP: its leases and its holds may expire meanwhile
    CRASH = "machine down"  # what was not synced is gone, the disk comes back
    BURN = "machine gone"  # and its disk with it
    CANCEL = "cancelled"
    HANG_UP = "client hung up"
    # the world
    CLOCK = "a machine's clock steps"
    STORE_CLOCK = "the store's clock steps"
    STORE_DOWN = "store out of reach"
    LEDGER_DOWN = "ledger out of reach"
    LEDGER_SLOW = "ledger slow"
    DISK_FULL = "disk full"
    WIPE = "store wiped"
    FAILOVER = "store on older data"
    FAIL_BACK = "store back on its old process"
    CUT_OFF = "a worker out of the store's reach"
    # a backend
    UNREACHABLE = "no connection"
    REFUSES = "refused (429, 503)"
    BREAKS = "500 after work"
    CUT = "cut in the middle"
    WITHHOLDS = "usage withheld"


ON_MESSAGES: Final = (Fault.LOST, Fault.UNKNOWN, Fault.TWICE, Fault.LATE)
ON_STEPS: Final = (Fault.KILL, Fault.STOP, Fault.CRASH, Fault.BURN)
ON_REQUESTS: Final = (Fault.CANCEL, Fault.HANG_UP)
ON_WORLD: Final = (
    Fault.CLOCK,
    Fault.STORE_CLOCK,
    Fault.STORE_DOWN,
    Fault.LEDGER_DOWN,
    Fault.LEDGER_SLOW,
    Fault.DISK_FULL,
    Fault.WIPE,
    Fault.FAILOVER,
    Fault.FAIL_BACK,
    Fault.CUT_OFF,
)
ON_BACKENDS: Final = (
    Fault.UNREACHABLE,
    Fault.REFUSES,
    Fault.BREAKS,
    Fault.CUT,
    Fault.WITHHOLDS,
)
LOSES_THE_STORE: Final = frozenset({Fault.WIPE, Fault.FAILOVER, Fault.FAIL_BACK})
ALL: Final = frozenset(Fault)
# Of these none makes a hold end before its worker, or that worker's spool, has ended it.
GENTLE: Final = frozenset(
    {
        Fault.KILL,
        Fault.CANCEL,
        Fault.HANG_UP,
        Fault.DISK_FULL,
        Fault.UNREACHABLE,
        Fault.REFUSES,
        Fault.BREAKS,
        Fault.CUT,
        Fault.WITHHOLDS,
    }
)


class Scenario(msgspec.Struct, frozen=True):
    """One world, up to the seed. Times are microseconds of simulated time.

    `allowed` None: every fault that is drawn strikes; else only those with these numbers, which is
    how a failing run is made smaller.
    """

    events: int = 6_000  # then faults end, and everything has to come to rest
    clients: int = 12
    machines: int = 2
    workers: int = 2  # on each machine
    budget: int = 40  # how tight the budgets are: dear requests that fit the tightest
    think_us: int = 4_000_000
    slice: int = 0  # output tokens by which the hold of a stream grows; 0: all is held at once
    outage: str = "strict"  # what every budget says of a store that does not answer
    lease_seconds: int = 60  # how long a worker may spend a lease, where that is `bounded`
    degrades: bool = False  # a cheaper model serves where no budget covers the one asked for
    keyed: int = 0  # of a hundred requests have an idempotency key, and are repeated
    faults: frozenset[Fault] = ALL
    per_mille: int = 12  # messages that meet a fault
    steps_apart: int = 900  # steps of processes between two faults
    allowed: frozenset[int] | None = None


CALM: Final = Scenario(faults=frozenset())


def drawn(seed: int, events: int, *, faults: frozenset[Fault] = ALL) -> Scenario:
    """A scenario of its own for each seed: a world with every fault at once hides what only a few
    of them together bring about.
    """
    dice = Random(f"scenario {seed}")
    pool = sorted(faults & GENTLE if dice.random() < 0.2 else faults)
    chosen = frozenset(fault for fault in pool if dice.random() < 0.6)
    outage = dice.choice(("strict", "open", "bounded", "bounded"))
    return Scenario(
        events=events,
        clients=dice.choice((3, 8, 16, 30)),
        machines=dice.choice((1, 2, 2, 3)),
        workers=dice.choice((1, 2, 3)),
        # A quarter of six requests' money is lent to nobody.
        budget=dice.choice((40, 200, 200, 3_000) if outage == "bounded" else (6, 40, 200, 3_000)),
        think_us=dice.choice((1_000_000, 4_000_000, 10_000_000)),
        slice=dice.choice((0, 0, 64, 256)),
        outage=outage,
        lease_seconds=dice.choice((15, 60, 300)),
        degrades=dice.random() < 0.3,
        keyed=dice.choice((0, 0, 20, 70)),
        faults=chosen,
        per_mille=dice.choice((2, 10, 40)),
        steps_apart=dice.choice((150, 600, 3_000)),
    )
