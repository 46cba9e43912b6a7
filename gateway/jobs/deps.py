"""What the jobs are made of: built once where the process is wired."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from redis.asyncio import Redis
from sqlalchemy import Engine

from gateway.backends.lookout import Lookout
from gateway.stores.redis.holds import HoldStore

if TYPE_CHECKING:
    from gateway.jobs.raise_alerts import Read
    from gateway.jobs.tell_alerts import Webhooks


@dataclass
class Opened:
    """What is remembered between two looks at the accounts: the configuration's revision, and when
    all of them are counted next. Forgetting costs time, nothing else.
    """

    revision: int = -1
    count_at_us: int = 0


@dataclass
class Checked:
    """What the ledger's last self-check came to, for the metric."""

    faults: int = 0
    at_us: int = 0


@dataclass(frozen=True)
class JobDeps:
    """`name` is unique among the processes that run jobs; it is the journal's consumer."""

    engine: Engine
    client: Redis
    holds: HoldStore
    spool_dir: Path  # of this home: the spools of other machines are not here
    name: str
    decision_days: int = 0  # how long a decision is kept; 0: for ever
    alert_days: int = 0  # how long alerts are kept; 0: for ever
    lookout: Lookout | None = None  # at backends that publish their load; None: not asked
    # By backend id, until when it is not asked. Forgetting costs time, nothing else.
    unasked: dict[str, int] = field(default_factory=dict)
    # Events that were in no ledger at the last look. Forgetting costs time, nothing else.
    untold: set[str] = field(default_factory=set)
    # By spool, when an event or release of it was last sent. Forgetting costs time, nothing else.
    opened: Opened = field(default_factory=Opened)
    checked: Checked = field(default_factory=Checked)
    sent: dict[str, dict[str, int]] = field(default_factory=dict)
    webhooks: "Webhooks | None" = None  # None: alerts wait for a process that can tell them
    # By tenant, what alerts know of its budgets' past. Forgetting costs time, nothing else.
    past: dict[str, "Read"] = field(default_factory=dict)
    # By tenant, until when loops were looked for. Forgetting costs time, nothing else.
    seen_us: dict[str, int] = field(default_factory=dict)
    # By tag, when it was last looked for what is set aside. Forgetting costs time, nothing else.
    looked_aside: dict[str, int] = field(default_factory=dict)
    # By tenant, the turn at which its spending was compared. Forgetting costs time, nothing else.
    compared: dict[str, int] = field(default_factory=dict)
    # To whoever reads it, a dead worker's spool that another reads looks like a living one's.
    adopting: asyncio.Lock = field(default_factory=asyncio.Lock)
