"""Self-checks of the ledger as they are kept: one process at a time, one a day."""

from typing import Final

import msgspec
from sqlalchemy import Connection, or_, select, update

from gateway.stores.sql.books import Books
from gateway.stores.sql.records import Records
from gateway.stores.sql.self_check_tables import self_checks

_ENCODER: Final = msgspec.json.Encoder()


class SelfCheck(msgspec.Struct, frozen=True, kw_only=True):
    """`heads` are of the ledger's chains, as `doctor --ledger-anchor` takes them."""

    day: str
    began_at_us: int
    ended_at_us: int | None = None
    usage_rows: int = 0
    invoices: int = 0
    entries: int = 0
    faults: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()


RECORDS: Final = Records(self_checks, SelfCheck)


def claim(connection: Connection, day: str, now_us: int, given_up_us: int) -> bool:
    """Whether the check of the day is the caller's to make: nobody has made it, and whoever began
    it before `given_up_us` has not ended it.
    """
    of = self_checks.c
    dead = of.ended_at_us.is_(None) & (of.began_at_us < given_up_us)
    mine = update(self_checks).where(of.day == day, dead).values(began_at_us=now_us)
    if connection.execute(mine).rowcount:
        return True
    if RECORDS.exists(connection, day=day):
        return False
    with connection.begin_nested():
        RECORDS.add(connection, SelfCheck(day=day, began_at_us=now_us))
    return True


def due(connection: Connection, day: str, given_up_us: int) -> bool:
    """Whether it is worth a claim."""
    of = self_checks.c
    taken = or_(of.ended_at_us.is_not(None), of.began_at_us >= given_up_us)
    return connection.scalar(select(of.day).where(of.day == day, taken)) is None


def end(connection: Connection, day: str, found: Books, now_us: int) -> None:
    heads = [f"{each.chain}:{each.number}:{each.hash.hex()}" for each in found.heads]
    connection.execute(
        update(self_checks)
        .where(self_checks.c.day == day)
        .values(
            ended_at_us=now_us,
            usage_rows=found.usage_rows,
            invoices=found.invoices,
            entries=found.entries,
            faults=_ENCODER.encode(found.faults).decode(),
            heads=_ENCODER.encode(heads).decode(),
        )
    )


def give_up(connection: Connection, day: str) -> None:
    """It was cut short: the next process begins it anew."""
    of = self_checks.c
    connection.execute(self_checks.delete().where(of.day == day, of.ended_at_us.is_(None)))


def latest(connection: Connection) -> SelfCheck | None:
    """The last one that was ended."""
    of = self_checks.c
    query = select(self_checks).where(of.ended_at_us.is_not(None)).order_by(of.day.desc())
    row = connection.execute(query.limit(1)).mappings().one_or_none()
    return None if row is None else RECORDS.row(row)
