"""Usage: sums by whatever is asked, and request by request; JSON or CSV."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from sqlalchemy import Connection, select

from billing.csv_files import safe_text
from billing.money import format_picos
from billing.periods import MAX_US
from billing.rollups import BUCKET_US
from gateway import clock
from gateway.admin import fields
from gateway.admin.cost_sight import COST, as_seen
from gateway.admin.operation import Answer, Call, Filter, Operation
from gateway.admin.places import Sight
from gateway.admin.problems import ProblemError, invalid
from gateway.admin.roles import Right
from gateway.admin.tables import CSV, csv_answer, prefers_csv
from gateway.stores.sql import usage_reports
from gateway.stores.sql.tables import backends, former_names, keys, teams, tenants
from gateway.stores.sql.usage_reports import Group, Question, TooManyGroupsError

_DEFAULT_SPAN_US: Final = 31 * 24 * 3_600_000_000
_LAST_BUCKET_US: Final = MAX_US - MAX_US % BUCKET_US  # the year 10000 cannot be written
_NAMED: Final = {"tenant": tenants, "team": teams, "key": keys, "backend": backends}
_DIMENSION_HELP: Final = (
    "any of tenant, team, key, model, backend, region, provenance, hour, day (in the tenant's "
    "zone), cost_center (as it was then), cost_center_now, end_user (a pseudonym, where the tenant "
    "keeps any), tag:NAME, separated by commas"
)
_COUNTS: Final = (
    "requests",
    "attempts",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
    "uncharged_tokens",
)


class Span(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """From and to are instants; `from` is inside, `to` is not. By default the last 31 days."""

    from_: fields.Instant | None = msgspec.field(default=None, name="from")
    to: fields.Instant | None = None
    tenant_id: Filter | None = None
    team_id: Filter | None = None
    key_id: Filter | None = None
    model: Filter | None = None
    backend_id: Filter | None = None
    region: Filter | None = None
    provenance: Filter | None = None
    end_user: Filter | None = None  # a pseudonym, as rows and sums have it


class UsageQuery(Span, frozen=True, forbid_unknown_fields=True, kw_only=True):
    group_by: Annotated[str, Meta(max_length=512, description=_DIMENSION_HELP)] = ""


class UsagePage(msgspec.Struct, frozen=True, kw_only=True):
    """One item a group and currency. Tokens and charge are those of winning attempts; cost is of
    all attempts, and null for tenants that are not shown it; amounts are exact.
    """

    from_: str = msgspec.field(name="from")
    to: str
    items: tuple[dict[str, str | int | None], ...]
    next: str | None = None


async def _sums(call: Call) -> Answer:
    query: UsageQuery = call.query
    start_us, end_us = span_of(query)
    group_by = dimensions_of(query.group_by)
    question = Question(
        start_us=start_us,
        end_us=end_us,
        group_by=group_by,
        filters=filters_of(query),
        within=await within(call),
    )
    try:
        groups = await asyncio.to_thread(usage_reports.report, call.deps.engine, question)
    except TooManyGroupsError as fault:
        raise ProblemError(422, "too_many_groups", str(fault)) from None
    names = await call.read(lambda connection: _names(connection, group_by))
    items = as_seen(call, tuple(_item(group, group_by, names) for group in groups), COST)
    if prefers_csv(call.accept):
        return Answer(ready=csv_answer(_sum_rows(items, group_by), {"cache-control": "no-store"}))
    return Answer(UsagePage(from_=clock.rfc3339(start_us), to=clock.rfc3339(end_us), items=items))


async def within(call: Call) -> dict[str, frozenset[str]]:
    """The values of columns that are in sight, where not everything is."""
    principal = call.principal
    if principal.tenant_id is None:
        return {}
    if principal.team_id is None:
        return {"tenant_id": frozenset({principal.tenant_id})}
    teams = await call.read(lambda connection: Sight(connection, principal).teams)
    return {"tenant_id": frozenset({principal.tenant_id}), "team_id": teams}


def operations() -> list[Operation]:
    return [
        Operation(
            "GET",
            "/usage",
            "usage",
            "Sum usage and money",
            _sums,
            right=Right.USAGE_READ,
            query=UsageQuery,
            answers=UsagePage,
            refusals=(422,),
            media_types=("application/json", CSV),
        ),
    ]


def span_of(query: Span) -> tuple[int, int]:
    """Microseconds. Nothing is admitted in the future, so an end there may be any later instant:
    the end of the bucket lets the rollups answer.
    """
    now_us = clock.now_us()
    end_us = now_us + 1 if query.to is None else fields.instant(query.to, "to")
    if end_us > now_us:
        end_us = min(end_us + -end_us % BUCKET_US, _LAST_BUCKET_US)
    start_us = end_us - _DEFAULT_SPAN_US
    if query.from_ is not None:
        start_us = fields.instant(query.from_, "from")
    if start_us >= end_us:
        raise invalid("from", "the span is empty: `from` must be before `to`")
    return max(0, start_us), end_us


def dimensions_of(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",")) if text.strip() else ()
    for name in names:
        if not usage_reports.known_dimension(name):
            raise invalid("group_by", f"{name!r} is not a dimension", _DIMENSION_HELP)
    if len(set(names)) != len(names):
        raise invalid("group_by", "a dimension is named twice")
    return names


def filters_of(query: msgspec.Struct) -> dict[str, str]:
    given = msgspec.structs.asdict(query)
    columns = (*usage_reports.FILTERS, "request_id")
    return {name: given[name] for name in columns if given.get(name) is not None}


def _names(connection: Connection, group_by: Sequence[str]) -> dict[str, dict[str, str]]:
    """Names by id for the dimensions that have any; of keys and teams, also those deleted since."""
    return {
        name: {
            row.id: row.name
            for table in (former_names, _NAMED[name])
            for row in connection.execute(select(table.c.id, table.c.name))
        }
        for name in group_by
        if name in _NAMED
    }


def _item(
    group: Group, group_by: Sequence[str], names: Mapping[str, Mapping[str, str]]
) -> dict[str, str | int | None]:
    item: dict[str, str | int | None] = {}
    for name, value in zip(group_by, group.by, strict=True):
        item[name] = value
        if name in names:
            item[f"{name}_name"] = names[name].get(value, "")
    for name in _COUNTS:
        item[name] = getattr(group, name)
    item["charge"] = format_picos(group.charge_picos)
    item["cost"] = format_picos(group.cost_picos)
    item["currency"] = group.currency
    return item


def _sum_rows(
    items: Sequence[Mapping[str, str | int | None]], group_by: Sequence[str]
) -> Iterator[tuple[str, ...]]:
    labels = [
        column
        for name in group_by
        for column in ((name, f"{name}_name") if name in _NAMED else (name,))
    ]
    figures = (*_COUNTS, "charge", "cost", "currency")
    yield (*labels, *figures)
    for item in items:
        yield (
            *(safe_text(str(item[name])) for name in labels),
            *("" if item[name] is None else str(item[name]) for name in figures),
        )
