"""Whatever is delivered, in whatever order and batches and however often, and whatever is added up
or derived anew in between: the rollups are the sums of the events, byte for byte.
"""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from billing.meters import Meters
from billing.rollups import BUCKET_US, canonical, fold, merge
from billing.usage import UsageEvent
from gateway.stores.sql import compaction, rebuilding, rollups, usage
from gateway.stores.sql.engine import reading
from tests.ledger_events import NOON_US, a_ledger, an_event

Sent = tuple[int, dict[str, Any]]
Step = tuple[str, Any]
tokens = st.integers(0, 2**34)  # a usage row of SQLite holds 2^63 picos
events = st.tuples(
    st.integers(0, 12),
    st.fixed_dictionaries(
        {
            "winner": st.booleans(),
            "key_id": st.sampled_from(["key_bot", "key_x"]),
            "cost_card": st.sampled_from([None, an_event().cost_card]),
            "usage": st.builds(Meters, tokens, tokens, tokens, tokens, tokens),
            "admitted_at_us": st.integers(-3, 3).map(lambda n: NOON_US + n * BUCKET_US // 2),
        }
    ),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("book"), st.lists(events, max_size=6)),
        st.tuples(st.just("compact"), st.integers(1, 4)),
        st.tuples(st.just("rebuild"), st.integers(1, 4)),
    ),
    max_size=8,
)
_TENANTS = itertools.count()


@given(st.lists(st.lists(events, max_size=5), max_size=6), st.randoms())
def test_deltas_may_be_put_together_in_any_way(batches: list[list[Sent]], chance: Any) -> None:
    booked = [named(n, sent, "t") for n, sent in enumerate(itertools.chain(*batches))]
    ends = list(itertools.accumulate((len(batch) for batch in batches), initial=0))
    parts = [fold(booked[start:end]) for start, end in itertools.pairwise(ends)]

    while len(parts) > 1:  # compaction: any of them, in any order
        chance.shuffle(parts)
        parts = [merge(itertools.chain(*parts[:2])), *parts[2:]]

    assert list(canonical(merge(itertools.chain(*parts)))) == list(canonical(fold(booked)))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    directory: Path = tmp_path_factory.mktemp("rollups")
    with a_ledger(f"sqlite:///{directory / 'ledger.sqlite'}") as engine:
        yield engine


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps)
def test_the_store_says_what_the_model_says_after_every_step(
    engine: Engine, course: list[Step]
) -> None:
    tenant = f"tenant_{next(_TENANTS)}"
    known: dict[str, UsageEvent] = {}
    for name, given_ in course:
        if name == "book":
            sent = [named(n, (n, fields), tenant) for n, fields in given_]
            # What is delivered again is what was delivered first.
            delivered = [known.setdefault(event.event_id, event) for event in sent]
            usage.record(engine, [(event, True) for event in delivered])
        else:
            _TIDYING[name](engine, given_)

        with reading(engine) as connection:
            said = list(canonical(rollups.lines(connection, tenant)))
        assert said == list(canonical(fold(known.values())))


_TIDYING: dict[str, Callable[[Engine, int], object]] = {
    "compact": compaction.compact,
    "rebuild": lambda engine, some: list(rebuilding.rebuild(engine, some * BUCKET_US)),
}


def named(number: int, sent: Sent, tenant: str) -> UsageEvent:
    return an_event(f"req_{tenant}_{number}", tenant_id=tenant, **sent[1])
