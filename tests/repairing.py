"""Steps that make lost counters whole, in the store and in the model."""

from typing import Any

import msgspec
import redis

from gateway.stores.redis import keys, wire
from gateway.stores.redis.scripts import CORRECT, CUT, RESTORE
from policies import recount
from policies.budgets import Admission, State
from policies.rebuild import restore
from policies.recount import Correction

_CLOSED = "closed:2:0:abc"


class Restore(msgspec.Struct, frozen=True):
    """A hold put back while the epoch is closed for that."""

    ask: Admission


class Correct(msgspec.Struct, frozen=True):
    """What a recount makes of its own cut."""

    corrections: tuple[Correction, ...]


def repaired_in_store(
    client: redis.Redis, tag: str, step: Restore | Correct
) -> tuple[int, list[Any]]:
    if isinstance(step, Restore):
        return _restored(client, tag, step.ask)
    names = (keys.cut(tag), keys.journal(tag))
    client.eval(CUT.text, 2, *names, "mine", 60_000, *(one.key for one in step.corrections))
    told = wire.correction_args(step.corrections, ())
    named = (keys.cut(tag), keys.holds(tag))
    return 0, [client.eval(CORRECT.text, 2, *named, "mine", *told)]


def repaired_in_model(state: State, step: Restore | Correct, now_us: int) -> tuple[State, bool]:
    if isinstance(step, Restore):
        return restore(state, step.ask, now_us)
    state, _, _ = recount.cut(state, "mine", [one.key for one in step.corrections])
    return recount.correct(state, "mine", step.corrections)


def _restored(client: redis.Redis, tag: str, ask: Admission) -> tuple[int, list[Any]]:
    opened = client.get(keys.epoch(tag))
    client.set(keys.epoch(tag), _CLOSED)
    names = (keys.holds(tag), keys.epoch(tag))
    now_us, *answers = client.eval(RESTORE.text, 2, *names, _CLOSED, *wire.admission_args(ask))
    client.set(keys.epoch(tag), opened)
    return now_us, answers
