"""What the store keeps of idempotency keys, as the model would keep it."""

import time
from typing import Any

import msgspec
import redis

from gateway.stores.redis import keys
from policies.idempotency import ANSWER_OVERHEAD, Kept, Taken, Tickets

SOON_MS = 1_000


def stored_tickets(client: redis.Redis, tag: str, key_id: str = "key_1") -> Tickets:
    """Everything of one application key's. The sizes kept beside the answers add up, or this
    fails."""
    index = keys.tickets(tag, key_id)
    listed, sizes = keys.answers(tag)
    taken, answers = {}, {}
    for key in sorted(raw.decode() for raw in client.scan_iter(f"{index}:*", count=1000)):
        value: Any = client.get(key)
        if value is not None and ":answer:" not in key:
            fingerprint, expiry, hold_id = value[:32], value[32:41], value[41:]
            expiry_ms = msgspec.msgpack.decode(expiry)
            taken[key] = Taken(expiry_ms, fingerprint.decode(), hold_id.decode())
    for raw, score in client.zrange(listed, 0, -1, withscores=True):
        answer = client.get(raw) or b""
        answers[raw.decode()] = Kept(int(score), answer[9:])
    counted = {name.decode(): int(size) for name, size in client.hgetall(sizes).items()}
    total = counted.pop("", 0)
    assert counted.keys() == answers.keys()
    assert sum(counted.values()) == total
    lasting = {key for key, kept in answers.items() if is_lasting(kept.expiry_ms)}
    assert all(counted[key] == len(answers[key].answer) + ANSWER_OVERHEAD for key in lasting)
    members = client.zrange(index, 0, -1, withscores=True)
    names = {name.decode(): int(score) for name, score in members}
    return Tickets(taken, {index: names} if names else {}, answers)


def as_stored(tickets: Tickets) -> Any:
    """For comparing: what expires soon may be gone from the store by itself."""
    return (
        {key: one for key, one in tickets.taken.items() if is_lasting(one.expiry_ms)},
        {key: names for key, names in tickets.index.items() if names},
        {
            key: (kept.expiry_ms, kept.answer if is_lasting(kept.expiry_ms) else b"")
            for key, kept in tickets.answers.items()
        },
    )


def is_lasting(expiry_ms: int) -> bool:
    return expiry_ms > time.time_ns() // 1_000_000 + SOON_MS
