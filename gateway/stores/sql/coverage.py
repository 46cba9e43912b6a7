"""What invoices took from the rollups, and what of a month nobody took yet.

The difference between two sums decides, not which row came when: however late usage is booked, it
is billed once.
"""

from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, func, select

from billing.meters import Meters
from billing.periods import Window
from gateway.stores.sql import rollups
from gateway.stores.sql.bulk import Row, append
from gateway.stores.sql.cost_centers import CostCenters
from gateway.stores.sql.exact import exact_sum, whole
from gateway.stores.sql.invoice_tables import invoice_usage, invoices
from gateway.stores.sql.invoices import Invoice, stood

_TOKENS: Final = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
)


class Payer(msgspec.Struct, frozen=True, order=True):
    """Whose usage it is, of what, and at which prices. Ids, not names."""

    team_id: str
    key_id: str
    cost_center: str
    model: str
    region: str
    provenance: str
    charge_card: str


class Used(msgspec.Struct, frozen=True):
    meters: Meters
    charge_picos: int

    def less(self, other: "Used") -> "Used":
        return Used(
            Meters(*(mine - its for mine, its in zip(_five(self), _five(other), strict=True))),
            self.charge_picos - other.charge_picos,
        )

    def __add__(self, other: "Used") -> "Used":
        return Used(self.meters + other.meters, self.charge_picos + other.charge_picos)


NOTHING: Final = Used(Meters(), 0)


class Covered(msgspec.Struct, frozen=True, kw_only=True):
    """What an invoice takes of one payer and one month, with the names it is billed under."""

    payer: Payer
    period: Window
    team: str
    key: str
    used: Used


def booked(
    connection: Connection, tenant_id: str, period: Window, centers: CostCenters
) -> dict[Payer, Used]:
    """All that the rollups have of the month, by the cost centres of its time."""
    found: dict[Payer, Used] = {}
    for start_us, end_us in centers.spans(period.start_us, period.end_us):
        for each in rollups.charged(connection, tenant_id, start_us, end_us):
            payer = Payer(
                each.team_id,
                each.key_id,
                centers.at(each.team_id, start_us),
                each.model,
                each.region,
                each.provenance,
                each.charge_card,
            )
            used = Used(each.meters, each.charge_picos)
            found[payer] = found.get(payer, NOTHING) + used
    return found


def covered(
    connection: Connection, tenant_id: str, period: Window, stood_at_us: int | None = None
) -> dict[Payer, Used]:
    """All that invoices took of the month which stand, or stood then."""
    of = invoice_usage.c
    keys = [of[name] for name in Payer.__struct_fields__]
    high, low = exact_sum(connection.dialect.name, of.charge_picos)
    found = connection.execute(
        select(*keys, *(func.sum(of[name]) for name in _TOKENS), high, low)
        .join(invoices, invoices.c.id == of.invoice_id)
        .where(invoices.c.tenant_id == tenant_id, stood(stood_at_us))
        .where(of.period_start_us == period.start_us, of.period_end_us == period.end_us)
        .group_by(*keys)
    )
    return {Payer(*row[: len(keys)]): _used(row[len(keys) :]) for row in found}


class Month(msgspec.Struct, frozen=True):
    """What the rollups have of a month beyond what was issued, negative where they have less; and
    what was issued.
    """

    left: dict[Payer, Used]
    taken: dict[Payer, Used]

    @property
    def both(self) -> list[tuple[Payer, Used]]:
        """All that the rollups have of the month."""
        return [*self.left.items(), *self.taken.items()]


def unbilled(
    connection: Connection,
    tenant_id: str,
    period: Window,
    centers: CostCenters,
    stood_at_us: int | None = None,
) -> Month:
    left = booked(connection, tenant_id, period, centers)
    taken = covered(connection, tenant_id, period, stood_at_us)
    for payer, used in taken.items():
        left[payer] = left.get(payer, NOTHING).less(used)
    return Month({payer: used for payer, used in left.items() if used != NOTHING}, taken)


def store(connection: Connection, invoice_id: str, rows: Sequence[Covered]) -> None:
    """In place of what a draft covered before."""
    connection.execute(invoice_usage.delete().filter_by(invoice_id=invoice_id))
    append(connection, invoice_usage, _rows(invoice_id, rows))


def is_stored(connection: Connection, invoice_id: str, rows: Sequence[Covered]) -> bool:
    query = select(invoice_usage).filter_by(invoice_id=invoice_id)
    stored = connection.execute(query.order_by(invoice_usage.c.position))
    return [tuple(row) for row in stored] == _rows(invoice_id, rows)


def of(connection: Connection, invoice_ids: Collection[str]) -> list[tuple[str, Covered]]:
    """What each invoice covers, in the order in which it was stored."""
    found = connection.execute(
        select(invoice_usage)
        .where(invoice_usage.c.invoice_id.in_(list(invoice_ids)))
        .order_by(invoice_usage.c.invoice_id, invoice_usage.c.position)
    ).mappings()
    return [
        (
            row["invoice_id"],
            Covered(
                payer=Payer(*(row[name] for name in Payer.__struct_fields__)),
                period=Window("", row["period_start_us"], row["period_end_us"]),
                team=row["team"],
                key=row["key"],
                used=Used(Meters(*(int(row[name]) for name in _TOKENS)), row["charge_picos"]),
            ),
        )
        for row in found
    ]


def cards(connection: Connection, invoice: Invoice, of_it: Collection[Covered]) -> set[str]:
    """The ids of those by which it is known what tokens on the invoice were booked at: its own, and
    those of other invoices of its months, whose tokens it may bill in other steps than they did.
    """
    of = invoice_usage.c
    months = {each.period.start_us for each in of_it}
    others = connection.scalars(
        select(of.charge_card)
        .join(invoices, invoices.c.id == of.invoice_id)
        .where(invoices.c.tenant_id == invoice.tenant_id, invoices.c.status != "draft")
        .where(of.period_start_us.in_(months))
        .distinct()
    )
    return {*others, *(each.payer.charge_card for each in of_it)}


def _five(used: Used) -> tuple[int, ...]:
    return msgspec.structs.astuple(used.meters)


def _used(figures: Sequence[Any]) -> Used:
    *tokens, high, low = figures
    return Used(Meters(*(int(count) for count in tokens)), whole(high, low))


def _rows(invoice_id: str, rows: Sequence[Covered]) -> list[Row]:
    return [_row(invoice_id, position, each) for position, each in enumerate(rows, start=1)]


def _row(invoice_id: str, position: int, each: Covered) -> Row:
    payer, used = each.payer, each.used
    return (
        invoice_id,
        position,
        each.period.start_us,
        each.period.end_us,
        payer.team_id,
        payer.key_id,
        payer.cost_center,
        each.team,
        each.key,
        payer.model,
        payer.region,
        payer.provenance,
        payer.charge_card,
        *_five(used),
        used.charge_picos,
    )
