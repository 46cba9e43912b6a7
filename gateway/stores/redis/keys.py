"""The names of everything in the store. All keys of a tenant carry its tag: one shard, one slot."""

import zlib
from typing import Final

DEFAULT_TAG: Final = "s00"  # of whoever is alone on one server
CONFIG_CHANNEL: Final = "mh:config"
ONE_TAG: Final = ("s00",)
CLUSTER_TAGS: Final = tuple(f"s{number:02}" for number in range(64))


def holds(tag: str) -> str:
    """ZSET of living holds: hold id -> expiry in ms. The scripts derive the records' keys of it."""
    return f"mh:{{{tag}}}:holds"


def hold(tag: str, hold_id: str) -> str:
    """One hold's record; empty: the id is spent."""
    return f"mh:{{{tag}}}:hold:{hold_id}"


def posted(tag: str, hold_id: str) -> str:
    """The mark of a request that is on the counters though no hold of its own was settled."""
    return f"mh:{{{tag}}}:posted:{hold_id}"


def journal(tag: str) -> str:
    return f"mh:{{{tag}}}:journal"


def quarantine(tag: str) -> str:
    """HASH event id -> what the ledger refuses of the journal: set aside, never dropped."""
    return f"mh:{{{tag}}}:quarantine"


def account(tag: str, budget_id: str, window_id: str) -> str:
    """HASH `posted`, `held`, `leased` and each `lease:{id}` of one budget in one window; of tokens
    per day: `{limit_id}:tpd`.
    """
    return f"mh:{{{tag}}}:acct:{budget_id}:{window_id}"


def epoch(tag: str) -> str:
    """Which state of the store may be admitted against."""
    return f"mh:{{{tag}}}:epoch"


def cut(tag: str) -> str:
    """The token of the recount that is under way."""
    return f"mh:{{{tag}}}:cut"


def unopened(tag: str) -> str:
    """Set by a worker that needs an account opened."""
    return f"mh:{{{tag}}}:unopened"


def leases(tag: str) -> str:
    """ZSET of what is lent for outages: `{lease id} {account key}` -> expiry in ms."""
    return f"mh:{{{tag}}}:leases"


def crew(tag: str) -> str:
    """Of this name share.lua makes others: `{name}:{backend}`, HASH of the workers that have slots
    of the backend, `{name}:{backend}:floors` and `...:line:{priority}:{team}`, its fair queue.
    """
    return f"mh:{{{tag}}}:crew"


def crew_tag(backend_id: str) -> str:
    """What crosses tenants is on tags of its own; nothing of it outlives ten minutes' silence, so
    that the tag may be computed.
    """
    return f"b{zlib.crc32(backend_id.encode()) % 64:02}"


def gate(tag: str, limit_id: str, kind: str) -> str:
    """One rate limit's `tat` in us. `kind` is rpm or tpm."""
    return f"mh:{{{tag}}}:gate:{limit_id}:{kind}"


def slots(tag: str, limit_id: str) -> str:
    """ZSET of the holds that occupy one concurrency limit: hold id -> expiry in ms."""
    return f"mh:{{{tag}}}:slots:{limit_id}"


def tickets(tag: str, key_id: str) -> str:
    """ZSET of one application key's idempotency keys. Of this name the scripts make others:
    `{name}:{ticket}`, a ticket's record, and `{name}:answer:{request id}`, a kept answer.
    """
    return f"mh:{{{tag}}}:once:{key_id}"


def answers(tag: str) -> tuple[str, str]:
    """ZSET and HASH of all kept answers of the tag: when they expire, what they count."""
    return f"mh:{{{tag}}}:answers", f"mh:{{{tag}}}:answers:size"


def drain(tag: str) -> str:
    """The lease of whoever brings this tag's journal to the ledger; on the tag's shard."""
    return f"drain:{{{tag}}}"


def still(tag: str) -> str:
    """The lease of whoever wants that journal at rest."""
    return f"still:{{{tag}}}"


def lease(name: str) -> str:
    return f"mh:lease:{name}"
