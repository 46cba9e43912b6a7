"""Invoices and their lines. A draft is remade from the ledger as often as one likes; nothing else
ever changes.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import ColumnElement, Connection, Engine, select, update

from billing.invoices import Aggregate, Draft, InvoiceLine
from billing.invoices import draft as draft_of
from billing.periods import Window, month
from billing.prices import RateCard
from gateway import clock, ids
from gateway.stores.sql import former_names, rate_cards, rollups, tenants
from gateway.stores.sql.bulk import append
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.rollups import Charged
from gateway.stores.sql.rows import Tenant
from gateway.stores.sql.tables import invoice_lines, invoices, keys, teams

_LINE_COLUMNS: Final = tuple(column.name for column in invoice_lines.columns)[2:]  # of the line


class Invoice(msgspec.Struct, frozen=True, kw_only=True):
    """The head of an invoice; its lines are read apart because there may be very many."""

    id: str
    tenant_id: str
    period: str  # 2026-11
    number: str | None = None  # null until issued
    status: str = "draft"  # draft | issued | voided
    currency: str
    period_start_us: int
    period_end_us: int
    total_minor: int
    version: int = 1
    created_at_us: int = 0


class UnknownTenantError(LookupError):
    """No tenant has this id."""


class NotBegunError(ValueError):
    """The month lies ahead, where the tenant is."""


def make_draft(engine: Engine, tenant_id: str, period: str) -> tuple[Invoice, bool]:
    """The draft of a tenant and month made anew from the ledger, and whether it is a first one.

    UnknownTenantError; NotBegunError; ValueError for a period not written `2026-11`;
    UnbalancedError when the ledger contradicts itself. A draft that comes out the same keeps its
    version.
    """
    with transaction(engine) as connection:
        before, after = refresh(connection, tenant_id, period)
        return after, before is None


def refresh(connection: Connection, tenant_id: str, period: str) -> tuple[Invoice | None, Invoice]:
    """The same in the caller's transaction: the draft as it was, if there was one, and as it is."""
    tenant = _locked_tenant(connection, tenant_id)
    span = month(period, ZoneInfo(tenant.timezone))
    if span.start_us > clock.now_us():
        raise NotBegunError(f"{period} has not begun in {tenant.timezone}")
    before = _draft(connection, tenant_id, period)
    invoice_id = ids.new("inv") if before is None else before.id
    made = draft_of(
        _aggregates(connection, tenant_id, span),
        invoice_id=invoice_id,
        currency=tenant.currency,
        period=span,
    )
    fresh = Invoice(
        id=invoice_id,
        tenant_id=tenant_id,
        period=period,
        currency=tenant.currency,
        period_start_us=span.start_us,
        period_end_us=span.end_us,
        total_minor=made.total_minor,
        created_at_us=clock.now_us() if before is None else before.created_at_us,
    )
    return before, _store(connection, before, fresh, made)


def one(engine: Engine, invoice_id: str) -> Invoice | None:
    with reading(engine) as connection:
        found = connection.execute(select(invoices).where(invoices.c.id == invoice_id))
        row = found.mappings().one_or_none()
        return None if row is None else Invoice(**row)


def page(engine: Engine, where: dict[str, str], after: str | None, limit: int) -> list[Invoice]:
    """Invoices whose columns equal `where`, ordered by id, from after the id `after`."""
    with reading(engine) as connection:
        return seen(connection, where, after, limit)


def seen(
    connection: Connection,
    where: dict[str, str],
    after: str | None,
    limit: int,
    only: Iterable[ColumnElement[bool]] = (),
) -> list[Invoice]:
    """The same from the caller's view, and of those that meet all of `only`."""
    query = select(invoices).filter_by(**where).where(*only).order_by(invoices.c.id).limit(limit)
    if after is not None:
        query = query.where(invoices.c.id > after)
    return [Invoice(**row) for row in connection.execute(query).mappings()]


def lines(engine: Engine, invoice_id: str) -> Iterator[InvoiceLine]:
    """In their order, a part at a time: memory does not grow with the invoice."""
    query = select(invoice_lines).where(invoice_lines.c.invoice_id == invoice_id)
    with reading(engine) as connection:
        streamed = connection.execution_options(stream_results=True, max_row_buffer=1_000)
        for row in streamed.execute(query.order_by(invoice_lines.c.position)).mappings():
            yield InvoiceLine(**{name: row[name] for name in InvoiceLine.__struct_fields__})


def remove_draft(engine: Engine, invoice_id: str) -> bool:
    """Whether there was such a draft. What is issued stays."""
    with transaction(engine) as connection:
        return take_back(connection, invoice_id)


def take_back(connection: Connection, invoice_id: str) -> bool:
    """The same in the caller's transaction."""
    draft = select(invoices.c.id).filter_by(id=invoice_id, status="draft").with_for_update()
    if connection.scalar(draft) is None:
        return False
    connection.execute(invoice_lines.delete().filter_by(invoice_id=invoice_id))
    connection.execute(invoices.delete().filter_by(id=invoice_id))
    return True


def _locked_tenant(connection: Connection, tenant_id: str) -> Tenant:
    """Two refreshes of one tenant's drafts wait for each other. SQLite has one writer anyway."""
    query = select(tenants.RECORDS.table).filter_by(id=tenant_id).with_for_update()
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise UnknownTenantError(tenant_id)
    return tenants.RECORDS.row(row)


def _draft(connection: Connection, tenant_id: str, period: str) -> Invoice | None:
    query = select(invoices).filter_by(tenant_id=tenant_id, period=period, status="draft")
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else Invoice(**row)


def _store(connection: Connection, before: Invoice | None, fresh: Invoice, made: Draft) -> Invoice:
    if before is None:
        connection.execute(invoices.insert().values(**msgspec.structs.asdict(fresh)))
    else:
        if _same(connection, before, fresh, made):
            return before
        fresh = msgspec.structs.replace(fresh, version=before.version + 1)
        values = msgspec.structs.asdict(fresh)
        connection.execute(update(invoices).where(invoices.c.id == before.id).values(**values))
        connection.execute(invoice_lines.delete().filter_by(invoice_id=before.id))
    append(connection, invoice_lines, _rows(fresh.id, made))
    return fresh


def _same(connection: Connection, before: Invoice, fresh: Invoice, made: Draft) -> bool:
    if msgspec.structs.replace(fresh, version=before.version) != before:
        return False
    query = select(invoice_lines).where(invoice_lines.c.invoice_id == before.id)
    stored = connection.execute(query.order_by(invoice_lines.c.position))
    return [tuple(row) for row in stored] == _rows(before.id, made)


def _rows(invoice_id: str, made: Draft) -> list[tuple[Any, ...]]:
    return [
        (invoice_id, position, *(getattr(line, name) for name in _LINE_COLUMNS))
        for position, line in enumerate(made.lines, start=1)
    ]


def _aggregates(connection: Connection, tenant_id: str, span: Window) -> Iterator[Aggregate]:
    charged = rollups.charged(connection, tenant_id, span.start_us, span.end_us)
    cards = rate_cards.get(connection, {each.charge_card for each in charged})
    team_names, cost_centers = _teams(connection, tenant_id)
    key_names = _key_names(connection, tenant_id)
    for each in charged:
        yield _aggregate(
            each,
            cards[each.charge_card],
            team=team_names.get(each.team_id, each.team_id),
            cost_center=cost_centers.get(each.team_id, ""),
            key=key_names.get(each.key_id, each.key_id),
        )


def _aggregate(
    charged: Charged, card: RateCard, *, team: str, cost_center: str, key: str
) -> Aggregate:
    return Aggregate(
        cost_center=cost_center,
        team=team,
        key=key,
        model=charged.model,
        backend_region=charged.region,
        provenance=charged.provenance,
        card=card,
        meters=charged.meters,
        charge_picos=charged.charge_picos,
    )


def _teams(connection: Connection, tenant_id: str) -> tuple[dict[str, str], dict[str, str]]:
    """Names by id, and cost centres by id: a team without one is in that of its parent. Those that
    were deleted are in it too.
    """
    former = former_names.RECORDS.all(connection, tenant_id=tenant_id)
    found = {
        row.id: row for row in connection.execute(select(teams).filter_by(tenant_id=tenant_id))
    }

    def cost_center(team_id: str | None) -> str:
        seen: set[str] = set()
        while team_id is not None and team_id in found and team_id not in seen:
            seen.add(team_id)
            if found[team_id].cost_center:
                return str(found[team_id].cost_center)
            team_id = found[team_id].parent_id
        return ""

    names = {each.id: each.name for each in former} | {
        each.id: each.name for each in found.values()
    }
    centers = {each.id: each.cost_center for each in former}
    return names, centers | {id_: cost_center(id_) for id_ in found}


def _key_names(connection: Connection, tenant_id: str) -> dict[str, str]:
    """By id, of those that were deleted too."""
    query = select(keys.c.id, keys.c.name).where(keys.c.tenant_id == tenant_id)
    former = former_names.RECORDS.all(connection, tenant_id=tenant_id)
    named = {each.id: each.name for each in former}
    return named | {row.id: row.name for row in connection.execute(query)}
