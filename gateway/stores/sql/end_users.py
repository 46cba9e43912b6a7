"""Who is who in the ledger: keyed hashes on their way become subjects, ids drawn by chance.

What links one to the other is here alone, outside of every chain: when it goes, nobody can tell any
more whose rows those are, and the rows stay as they were sealed.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, select, update
from sqlalchemy.dialects import postgresql, sqlite

from billing.usage import UsageEvent
from gateway import ids
from gateway.pseudonyms import SUBJECT
from gateway.stores.sql.end_user_tables import end_users

Delivered = tuple[UsageEvent, bool]  # with whether its hold was found

_IDS_AT_ONCE: Final = 5_000


class Known(msgspec.Struct, frozen=True):
    """One pseudonym. No subject: it was erased, and nothing came after."""

    pseudonym: str
    tenant_id: str
    subject: str | None
    erased_at_us: int | None


def with_subjects(
    connection: Connection, by_id: Mapping[str, Delivered]
) -> Mapping[str, Delivered]:
    """The same events with subjects for pseudonyms. What was admitted before somebody was erased
    is nobody's, however late it comes. To be called before anything else is written: whoever
    books the same people meanwhile waits here, and holds nothing that we need.
    """
    bearing = {id_: each for id_, each in by_id.items() if each[0].end_user is not None}
    if not bearing:
        return by_id
    known = _introduced(connection, [event for event, _ in bearing.values()])
    return {
        **by_id,
        **{
            id_: (msgspec.structs.replace(event, end_user=_subject(event, known)), found)
            for id_, (event, found) in bearing.items()
        },
    }


def _subject(event: UsageEvent, known: Mapping[str, Known]) -> str | None:
    row = known.get(str(event.end_user))  # None: gone since, with all that its key had hashed
    if row is None or row.tenant_id != event.tenant_id or _is_before(event, row):
        return None
    return row.subject


def _is_before(event: UsageEvent, row: Known) -> bool:
    """Whether the request had come when its end user was erased."""
    return row.erased_at_us is not None and event.admitted_at_us <= row.erased_at_us


def _introduced(connection: Connection, events: Sequence[UsageEvent]) -> Mapping[str, Known]:
    """Each has a row, and a subject unless it came before its erasure. Written in one order by
    everybody, so that nobody waits for one who waits for him.
    """
    tenant_of = {str(event.end_user): event.tenant_id for event in events}
    known = of(connection, tenant_of)
    new = sorted(tenant_of.keys() - known.keys())
    if new:
        made = [
            {
                "pseudonym": pseudonym,
                "tenant_id": tenant_of[pseudonym],
                "subject": ids.new(SUBJECT),
            }
            for pseudonym in new
        ]
        connection.execute(_insert(connection).on_conflict_do_nothing(), made)
        known |= of(connection, new)  # of those whom somebody else was first with, too
    back = {
        str(event.end_user)
        for event in events
        if (row := known.get(str(event.end_user))) is not None
        and row.subject is None
        and not _is_before(event, row)
    }
    for pseudonym in sorted(back):
        mine = (end_users.c.pseudonym == pseudonym) & end_users.c.subject.is_(None)
        connection.execute(update(end_users).where(mine).values(subject=ids.new(SUBJECT)))
    return known | of(connection, back) if back else known


def of(connection: Connection, pseudonyms: Collection[str]) -> dict[str, Known]:
    """Those of the pseudonyms that are known."""
    found: dict[str, Known] = {}
    wanted = sorted(pseudonyms)
    for start in range(0, len(wanted), _IDS_AT_ONCE):
        some = wanted[start : start + _IDS_AT_ONCE]
        where = end_users.c.pseudonym.in_(some)
        rows = connection.execute(select(end_users).where(where)).mappings()
        found |= {row["pseudonym"]: Known(**row) for row in rows}
    return found


def _insert(connection: Connection) -> Any:
    insert: Any = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    return insert(end_users)
