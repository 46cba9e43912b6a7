"""Rollups say what the usage rows say, byte for byte: however it was delivered, whatever was added
up in between, derived as it came or anew, on SQLite as on PostgreSQL.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from sqlalchemy import Engine, delete, select, update

from billing.meters import Meters, Provenance
from billing.rollups import BUCKET_US, canonical, fold
from billing.usage import UsageEvent
from gateway.stores.sql import books, compaction, rebuilding, rollups, usage
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.tables import rollup_deltas
from gateway.stores.sql.tables import rollups as table
from tests.ledger_events import NOON_US, a_card, a_ledger, an_event

DEAR = a_card(90_000_000_000_000, 1, "dear")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with a_ledger(database_url) as engine:
        yield engine


def a_day(count: int = 120) -> list[UsageEvent]:
    return [
        an_event(
            f"req_{n}",
            winner=n % 9 > 0,
            key_id=f"key_{n % 5}",
            model=("Chat-large", "chat", "é")[n % 3],
            cost_card=None if n % 4 == 0 else an_event().cost_card,
            usage=Meters(n, n % 7, n % 3, n % 2, 5 * n),
            admitted_at_us=NOON_US - n * 7 * BUCKET_US // 11,
            tenant_id=("tenant_acme", "tenant_bharat")[n % 2],
        )
        for n in range(count)
    ]


def book(engine: Engine, events: Sequence[UsageEvent]) -> None:
    usage.record(engine, [(event, True) for event in events])


def said(engine: Engine) -> str:
    with reading(engine) as connection:
        return rollups.digest(connection)


def of(events: Sequence[UsageEvent]) -> str:
    """What the rollups of these events say, without any database."""
    return hashlib.sha256(b"".join(canonical(fold(events)))).hexdigest()


def test_late_shuffled_and_repeated_deliveries_say_the_same(engine: Engine) -> None:
    events, chance = a_day(), random.Random(7)
    delivered = events + events[:40]
    chance.shuffle(delivered)

    while delivered:
        some = chance.randint(1, 30)
        book(engine, delivered[:some])
        del delivered[:some]
        if chance.random() < 0.5:
            compaction.compact(engine, most=chance.randint(1, 20))

    assert said(engine) == of(events)
    compaction.compact(engine)
    assert compaction.pending(engine) == 0
    assert said(engine) == of(events)


def test_a_correction_of_an_estimate_leaves_the_bytes_of_the_truth(engine: Engine) -> None:
    guess = an_event("req_1", hold="estimated", provenance=Provenance.ESTIMATED)
    truth = an_event("req_1", usage=Meters(input=1))
    book(engine, [guess])
    compaction.compact(engine)

    book(engine, [truth])

    assert said(engine) == of([truth])
    list(rebuilding.rebuild(engine))
    assert said(engine) == of([truth])


def test_what_was_lost_changed_or_made_up_is_as_it_was_once_it_is_rebuilt(engine: Engine) -> None:
    events = a_day()
    book(engine, events[:100])
    compaction.compact(engine)
    book(engine, events[100:])
    with transaction(engine) as connection:
        connection.execute(delete(table).where(table.c.key_id == "key_1"))
        connection.execute(update(table).where(table.c.key_id == "key_2").values(attempts=7))
        connection.execute(update(table).where(table.c.key_id == "key_3").values(currency="EUR"))
        connection.execute(update(table).where(table.c.key_id == "key_4").values(team_id="team_x"))
    assert said(engine) != of(events)

    spans = list(rebuilding.rebuild(engine, longest_us=3 * BUCKET_US))

    assert said(engine) == of(events)
    assert compaction.pending(engine) == 0
    assert len(spans) > 20
    assert sum(span.rollups for span in spans) == len(fold(events))
    assert all(one.end_us == next_.start_us for one, next_ in pairwise(spans))


def test_nothing_booked_is_nothing_rebuilt(engine: Engine) -> None:
    assert list(rebuilding.rebuild(engine)) == []
    assert compaction.compact(engine) == 0
    assert said(engine) == of([])


def test_bookings_go_on_beside_compaction_and_rebuild(engine: Engine) -> None:
    events = a_day(360)

    def deliver(start: int) -> None:
        for at in range(start, start + 120, 12):
            book(engine, events[at : at + 12])

    def tidy() -> None:
        for _ in range(6):
            compaction.compact(engine, most=5)
            list(rebuilding.rebuild(engine))

    with ThreadPoolExecutor(4) as pool:
        ended = [pool.submit(deliver, start) for start in (0, 120, 240)]
        ended.append(pool.submit(tidy))
    for each in ended:
        each.result()

    assert said(engine) == of(events)
    with reading(engine) as connection:
        assert books.check(connection).faults == ()


def test_several_compact_at_once_and_add_each_delta_once(engine: Engine) -> None:
    events = a_day()
    for at in range(0, 120, 4):
        book(engine, events[at : at + 4])
    pending = compaction.pending(engine)

    with ThreadPoolExecutor(4) as pool:
        added = sum(pool.map(lambda _: compaction.compact(engine, most=7), range(4)))

    assert added + compaction.pending(engine) == pending
    assert said(engine) == of(events)


def test_what_one_row_of_sqlite_cannot_hold_is_exact_all_the_same(sqlite_url: str) -> None:
    dear = [an_event(f"req_{n}", charge_card=DEAR, usage=Meters(input=60_000)) for n in range(3)]
    cheap = [an_event(f"req_c{n}") for n in range(3)]
    with a_ledger(sqlite_url) as engine:
        for one, other in zip(dear, cheap, strict=True):
            book(engine, [one, other])

        assert compaction.compact(engine) == 3
        assert kept(engine) == {DEAR.id: 3}
        assert said(engine) == of(dear + cheap)

        list(rebuilding.rebuild(engine))
        assert said(engine) == of(dear + cheap)
        compaction.compact(engine, most=2)
        assert kept(engine) == {DEAR.id: 2}
        assert said(engine) == of(dear + cheap)


def kept(engine: Engine) -> dict[str, int]:
    """Deltas that are not added, by rate card."""
    with reading(engine) as connection:
        cards = list(connection.scalars(select(rollup_deltas.c.charge_card)))
    return {card: cards.count(card) for card in set(cards)}
