"""What backends did: their attempts in the order in which they began, and whose they were."""

from collections.abc import Iterator, Sequence

import msgspec
from sqlalchemy import ColumnElement, Connection, case, func, select

from billing.observed import Work
from gateway.stores.sql.exact import exact_sum, whole
from gateway.stores.sql.tables import tenants, usage_rows

_LONGEST_US = 3_600_000_000  # before a span nothing is looked for that began earlier
_AT_ONCE = 5_000


class Share(msgspec.Struct, frozen=True):
    """What a team's attempts at a backend came to. `took_us`: the time of all of them together."""

    tenant_id: str
    team_id: str
    currency: str
    attempts: int
    took_us: int
    input_tokens: int  # cached ones and those written to a cache among them
    output_tokens: int
    cost_picos: int


def works(
    connection: Connection, backend_id: str, from_us: int, to_us: int, most: int
) -> Iterator[Work]:
    """The attempts that ended from `from_us` up to, not including, `to_us`, read as they are
    asked for; no more than the first `most` of them. Estimates took no time that anybody knows.
    """
    of = usage_rows.c
    started = (of.finished_at_us - of.duration_us).label("started_us")
    query = (
        select(
            started, of.ttft_us, of.finished_at_us,
            (of.input_tokens + of.cache_write_5m_tokens + of.cache_write_1h_tokens).label("fresh"),
            of.cache_read_tokens, of.output_tokens,
        )
        .where(*_ended(backend_id, from_us, to_us), of.duration_us > 0)
        .order_by(started)
        .limit(most)
    )  # fmt: skip
    with connection.execute(query.execution_options(yield_per=_AT_ONCE)) as rows:
        for started_us, ttft_us, ended_us, fresh, cached, output in rows:
            content_us = ended_us if ttft_us < 0 else min(ended_us, started_us + ttft_us)
            yield Work(started_us, content_us, ended_us, fresh, cached, output)


def shares(connection: Connection, backend_id: str, from_us: int, to_us: int) -> Sequence[Share]:
    """By team, of all attempts that ended in the span; in the order of their ids."""
    of = usage_rows.c
    every_input = (
        of.input_tokens + of.cache_read_tokens + of.cache_write_5m_tokens + of.cache_write_1h_tokens
    )
    high, low = exact_sum(connection.dialect.name, of.cost_picos)
    one = case((of.hold == "reversed", -1), else_=1)  # what takes one back is none
    sums = (
        func.sum(one), func.sum(of.duration_us), func.sum(every_input), func.sum(of.output_tokens)
    )  # fmt: skip
    rows = connection.execute(
        select(of.tenant_id, of.team_id, of.currency, *sums, high, low)
        .where(*_ended(backend_id, from_us, to_us))
        .group_by(of.tenant_id, of.team_id, of.currency)
        .order_by(of.tenant_id, of.team_id, of.currency)
    )
    return [
        Share(
            tenant_id=tenant_id,
            team_id=team_id,
            currency=currency,
            attempts=int(attempts),
            took_us=int(took_us),
            input_tokens=int(prompts),
            output_tokens=int(answers),
            cost_picos=whole(high, low),
        )
        for tenant_id, team_id, currency, attempts, took_us, prompts, answers, high, low in rows
    ]


def _ended(backend_id: str, from_us: int, to_us: int) -> tuple[ColumnElement[bool], ...]:
    """By the index of tenants and times: there is none of backends."""
    of = usage_rows.c
    return (
        of.tenant_id.in_(select(tenants.c.id)),
        of.admitted_at_us >= from_us - _LONGEST_US,
        of.admitted_at_us < to_us,
        of.finished_at_us >= from_us,
        of.finished_at_us < to_us,
        of.backend_id == backend_id,
    )
