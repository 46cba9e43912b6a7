"""Usage request by request: every attempt, how it was rated, and which invoice bills it."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from billing.csv_files import safe_text
from billing.money import format_picos
from billing.prices import RateCard, amount_per_million
from billing.quantity import Step
from billing.rating import RatedLine
from billing.rating import lines as rated_lines
from billing.service_tiers import ServiceTier, tier_of
from gateway import clock
from gateway.admin.cost_sight import sees_cost
from gateway.admin.operation import Answer, Call, Filter, Operation, PageSize
from gateway.admin.roles import Right
from gateway.admin.tables import CSV, csv_answer, prefers_csv
from gateway.admin.usage import Span, filters_of, span_of, within
from gateway.stores.sql import explained, rate_cards, usage_requests
from gateway.stores.sql.usage_requests import Attempt

RequestCursor = Annotated[
    str,
    Meta(
        max_length=200,
        pattern=r"^[0-9]{1,18}\.[\x21-\x7e]+$",
        extra={"rule": "the `next` of the page before"},
    ),
]


class RequestQuery(Span, frozen=True, forbid_unknown_fields=True, kw_only=True):
    request_id: Filter | None = None
    limit: PageSize = 50
    cursor: RequestCursor | None = None


class StepView(msgspec.Struct, frozen=True, kw_only=True):
    """What tokens above so many of a month cost."""

    above_tokens: int
    unit_price_per_million: str


class RatingView(msgspec.Struct, frozen=True, kw_only=True):
    """One meter: tokens times the price that was frozen at admission. Nothing is rounded here.
    `list_price_per_million`: where a contract asks for another one. `by_quantity`: `graduated` or
    `volume` where the month's total decides among `steps`; it is booked at the dearest of them,
    and the invoice has what the total makes of it.
    """

    meter: str
    quantity: int
    unit_price_per_million: str
    price_version: str
    amount: str
    service_tier: str
    list_price_per_million: str | None
    by_quantity: str | None
    steps: tuple[StepView, ...]


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt that could have reached a backend, with the backend's figures and our own.
    `rating` adds up to the charge; `invoice` is the number of the invoice that bills it. `cost` and
    `cost_card` are null for tenants that are not shown them. `service_tier` is the one whose prices
    it is rated at; `tier_served` is what the backend said, in its own word.
    """

    attempt: int
    winner: bool
    backend_id: str
    upstream_model: str
    region: str
    status: int
    end_by: str
    end_phase: str
    finished_at: str
    recorded_at: str
    ttft_ms: float | None
    duration_ms: float
    provenance: str
    usage: dict[str, int]
    reported: dict[str, int] | None
    counted: dict[str, int] | None
    reasoning_tokens: int
    charge: str
    cost: str | None
    charge_card: str
    cost_card: str | None
    hold: str
    service_tier: str
    tier_asked: str
    tier_served: str | None
    rating: tuple[RatingView, ...]
    invoice: str | None


class RequestView(msgspec.Struct, frozen=True, kw_only=True):
    request_id: str
    tenant_id: str
    team_id: str
    key_id: str
    model: str
    operation: str
    stream: bool
    admitted_at: str
    currency: str
    charge: str
    cost: str | None
    tags: dict[str, str]
    shadow_of: str | None  # the request that this one was sent a second time for
    end_user: str | None  # a pseudonym, where the tenant keeps any
    attempts: tuple[AttemptView, ...]


class RequestPage(msgspec.Struct, frozen=True, kw_only=True):
    items: tuple[RequestView, ...]
    next: str | None


async def _requests(call: Call) -> Answer:
    query: RequestQuery = call.query
    start_us, end_us = span_of(query)
    found = await asyncio.to_thread(
        usage_requests.page,
        call.deps.engine,
        start_us=start_us,
        end_us=end_us,
        filters=filters_of(query),
        within=await within(call),
        after=cursor_of(query.cursor),
        limit=query.limit + 1,
    )
    shown, following = found[: query.limit], _next(found, query.limit)
    if prefers_csv(call.accept):
        headers = {"cache-control": "no-store"} | (
            {"x-next-cursor": following} if following else {}
        )
        return Answer(ready=csv_answer(_attempt_rows(shown, sees_cost(call)), headers))
    with_cost = sees_cost(call)
    return Answer(
        await call.read(
            lambda connection: page_of_requests(connection, found, query.limit, with_cost)
        )
    )


def page_of_requests(
    connection: Connection, found: Sequence[Sequence[Attempt]], limit: int, with_cost: bool
) -> RequestPage:
    """Of what was `found` the first `limit`, as they are shown."""
    told = _told(connection, found[:limit], with_cost)
    items = tuple(_request(each, told) for each in found[:limit])
    return RequestPage(items=items, next=_next(found, limit))


def _next(found: Sequence[Sequence[Attempt]], limit: int) -> str | None:
    if len(found) <= limit:
        return None
    last = found[limit - 1][0]
    return f"{last.admitted_at_us}.{last.request_id}"


def operations() -> list[Operation]:
    return [
        Operation(
            "GET",
            "/usage/requests",
            "usage",
            "List usage request by request",
            _requests,
            right=Right.USAGE_READ,
            query=RequestQuery,
            answers=RequestPage,
            refusals=(422,),
            media_types=("application/json", CSV),
        ),
    ]


def cursor_of(text: str | None) -> usage_requests.Cursor | None:
    if text is None:
        return None
    at_us, _, request_id = text.partition(".")
    return int(at_us), request_id


class _Told(msgspec.Struct, frozen=True):
    """What a page's attempts are told with: cards by id, numbers of invoices by event, and whether
    they are told with their cost.
    """

    with_cost: bool
    cards: Mapping[str, RateCard]
    invoices: Mapping[str, str]


def _told(connection: Connection, page: Sequence[Sequence[Attempt]], with_cost: bool) -> _Told:
    shown = [attempt for request in page for attempt in request]
    cards = rate_cards.get(connection, {each.charge_card for each in shown})
    return _Told(with_cost, cards, explained.billed_by(connection, shown))


def _rating(attempt: Attempt, told: _Told) -> tuple[RatingView, ...]:
    """Of an attempt that won: others are charged nothing."""
    if not attempt.winner:
        return ()
    return tuple(map(_rated, rated_lines(attempt.usage, told.cards[attempt.charge_card])))


def _rated(line: RatedLine) -> RatingView:
    listed = line.list_picos
    return RatingView(
        meter=line.meter.value,
        quantity=line.quantity,
        unit_price_per_million=amount_per_million(line.picos_per_token),
        price_version=line.version,
        amount=format_picos(line.amount_picos),
        service_tier=tier_of(line.version).value,
        list_price_per_million=None if listed is None else amount_per_million(listed),
        by_quantity=None if line.schedule is None else line.schedule.mode,
        steps=() if line.schedule is None else tuple(map(_step, line.schedule.steps)),
    )


def _step(step: Step) -> StepView:
    price = amount_per_million(step.picos_per_token)
    return StepView(above_tokens=step.above_tokens, unit_price_per_million=price)


def _request(attempts: Sequence[Attempt], told: _Told) -> RequestView:
    first = attempts[0]
    return RequestView(
        request_id=first.request_id,
        tenant_id=first.tenant_id,
        team_id=first.team_id,
        key_id=first.key_id,
        model=first.model,
        operation=first.operation,
        stream=first.stream,
        admitted_at=clock.rfc3339(first.admitted_at_us),
        currency=first.currency,
        charge=format_picos(sum(each.charge_picos for each in attempts)),
        cost=_cost(sum(each.cost_picos for each in attempts), told.with_cost),
        tags=first.tags,
        shadow_of=first.shadow_of or None,
        end_user=first.end_user,
        attempts=tuple(_attempt(each, told) for each in attempts),
    )


def _attempt(row: Attempt, told: _Told) -> AttemptView:
    same = {
        name: getattr(row, name)
        for name in AttemptView.__struct_fields__
        if name in Attempt.__struct_fields__
    }
    return AttemptView(
        **same
        | {
            "finished_at": clock.rfc3339(row.finished_at_us),
            "recorded_at": clock.rfc3339(row.recorded_at_us),
            "ttft_ms": None if row.ttft_us < 0 else row.ttft_us / 1000,
            "duration_ms": row.duration_us / 1000,
            "usage": _meters(row.usage),
            "reported": _meters(row.reported),
            "counted": _meters(row.counted),
            "charge": format_picos(row.charge_picos),
            "cost": _cost(row.cost_picos, told.with_cost),
            "cost_card": row.cost_card if told.with_cost else None,
            "service_tier": row.service_tier or ServiceTier.STANDARD.value,
            "tier_asked": row.tier_asked or ServiceTier.STANDARD.value,
            "rating": _rating(row, told),
            "invoice": told.invoices.get(row.event_id),
        }
    )


def _cost(picos: int, shown: bool) -> str | None:
    return format_picos(picos) if shown else None


def _meters(meters: Any) -> Any:
    return None if meters is None else msgspec.structs.asdict(meters)


_ATTEMPT_COLUMNS: Final = (
    "request_id", "attempt", "winner", "tenant_id", "team_id", "key_id", "model", "backend_id",
    "upstream_model", "region", "operation", "stream", "admitted_at", "status", "end_by",
    "end_phase", "provenance", "input_tokens", "cache_read_tokens", "cache_write_5m_tokens",
    "cache_write_1h_tokens", "output_tokens", "charge", "cost", "currency",
    "shadow_of", "end_user", "service_tier",
)  # fmt: skip
_TEXT_COLUMNS: Final = frozenset({"model", "upstream_model", "region", "request_id"})


def _attempt_rows(
    requests: Sequence[Sequence[Attempt]], with_cost: bool
) -> Iterator[tuple[str, ...]]:
    yield _ATTEMPT_COLUMNS
    for request in requests:
        for row in request:
            values: dict[str, Any] = msgspec.structs.asdict(row) | {
                f"{meter}_tokens": count
                for meter, count in msgspec.structs.asdict(row.usage).items()
            }
            values["admitted_at"] = clock.rfc3339(row.admitted_at_us)
            values["charge"] = format_picos(row.charge_picos)
            values["cost"] = _cost(row.cost_picos, with_cost) or ""
            values["end_user"] = row.end_user or ""
            values["service_tier"] = row.service_tier or ServiceTier.STANDARD.value
            values["winner"] = "true" if row.winner else "false"
            values["stream"] = "true" if row.stream else "false"
            yield tuple(
                safe_text(values[name]) if name in _TEXT_COLUMNS else str(values[name])
                for name in _ATTEMPT_COLUMNS
            )
