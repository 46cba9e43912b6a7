"""Four eyes over HTTP: 409 for whoever would put in force what he drafted himself."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from gateway.admin.principal import Principal
from gateway.admin.problems import conflict
from gateway.stores.sql import second_person
from gateway.stores.sql.second_person import SecondPersonError


def require_another(connection: Connection, wrote: str | None, by: Principal, why: str) -> None:
    """409 for whoever wrote it."""
    with by_another():
        second_person.require_another(connection, wrote, by.id, why)


@contextmanager
def by_another() -> Iterator[None]:
    """The store's own refusal as that 409."""
    try:
        yield
    except SecondPersonError as fault:
        raise conflict("four_eyes", str(fault)) from None
