"""Calls that make money move may be sent again where their answer was lost: with the same
`idempotency-key` they make nothing more.
"""

import hashlib
import re
from typing import Final

import msgspec
from sqlalchemy import Connection, delete, select

from gateway import clock
from gateway.admin.operation import Call
from gateway.admin.problems import ProblemError, malformed
from gateway.stores.sql.admin_tables import repeatable_calls

KEPT_US: Final = 30 * 86_400_000_000
_KEY: Final = re.compile(r"[!-~]{1,128}")
_JSON: Final = msgspec.json.Encoder(order="deterministic")


def made_before(call: Call, connection: Connection) -> str | None:
    """The id of what the same call has made; None: nothing, or it names no key. To be asked in the
    transaction that makes it, behind a lock that the same call waits for.

    422 for a key that came with something else; 400 for what is no key.
    """
    if call.repeat_key is None:
        return None
    if _KEY.fullmatch(call.repeat_key) is None:
        raise malformed("idempotency-key", "it has 1 to 128 printable characters, and no space")
    of = repeatable_calls.c
    asked = select(of.digest, of.object_id).where(
        of.actor_id == call.principal.id, of.key == call.repeat_key
    )
    row = connection.execute(asked).one_or_none()
    if row is None:
        return None
    if row.digest != _digest(call):
        raise ProblemError(
            422, "idempotency_key_reused", "this idempotency-key came with another call; take a new"
        )
    return str(row.object_id)


def keep(call: Call, connection: Connection, object_id: str) -> None:
    """What it made, in the same transaction. Those of a month ago are forgotten."""
    if call.repeat_key is None:
        return
    now_us = clock.now_us()
    connection.execute(delete(repeatable_calls).where(repeatable_calls.c.at_us < now_us - KEPT_US))
    connection.execute(
        repeatable_calls.insert().values(
            actor_id=call.principal.id,
            key=call.repeat_key,
            digest=_digest(call),
            object_id=object_id,
            at_us=now_us,
        )
    )


def _digest(call: Call) -> str:
    return hashlib.sha256(_JSON.encode([call.name, call.named, call.tree])).hexdigest()
