"""The epochs of the store's counters as the ledger remembers them: what is older is stale."""

from sqlalchemy import Connection, Engine, select

from gateway import clock
from gateway.stores.sql.configuration import changing
from gateway.stores.sql.tables import store_epochs


def numbers(connection: Connection) -> dict[str, int]:
    """The newest of each tag that has had one."""
    rows = connection.execute(select(store_epochs.c.tag, store_epochs.c.number))
    return {tag: int(number) for tag, number in rows}


def begin(engine: Engine, tag: str, seen: int) -> int:
    """The number of the next epoch, above all that the ledger or the store have `seen`. It is told
    to every worker as a change of configuration is.
    """
    of = store_epochs.c
    with changing(engine) as (connection, _):
        number = max(numbers(connection).get(tag, 0), seen) + 1
        values = {"number": number, "begun_at_us": clock.now_us()}
        changed = connection.execute(store_epochs.update().where(of.tag == tag).values(**values))
        if not changed.rowcount:
            connection.execute(store_epochs.insert().values(tag=tag, **values))
        return number
