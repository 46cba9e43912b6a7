"""A journal as a busy gateway leaves it: events with their decisions, of many keys."""

from collections.abc import Iterator
from random import Random
from typing import Final

import redis

from billing.meters import Meters
from billing.usage import ENCODER
from gateway import clock, ids
from gateway.stores.redis import keys
from policies.candidates import Live
from policies.facts import Recorder
from tests.ledger_events import an_event
from tests.policy_builders import an_ask
from tests.unit.policies.test_facts import a_standing

_KEYS: Final = 100
_AT_ONCE: Final = 1_000
_RECORDER: Final = Recorder(a_standing())


def fill(store_url: str, tag: str, count: int) -> None:
    """So many entries, admitted during the last minutes, as `settle.lua` writes them."""
    with redis.Redis.from_url(store_url) as store:
        for start in range(0, count, _AT_ONCE):
            pipe = store.pipeline(transaction=False)
            for packed in _events(start, min(_AT_ONCE, count - start)):
                pipe.xadd(keys.journal(tag), {"e": packed, "h": 1})
            pipe.execute()


def _events(start: int, count: int) -> Iterator[bytes]:
    drawn, now_us = Random(start), clock.now_us()
    places = [(c.backend_id, c.upstream_model) for c in a_standing().candidates]
    for number in range(start, start + count):
        admitted_us = now_us - 300_000_000 + number * 1_000
        usage = Meters(input=drawn.randrange(1, 4_000), output=drawn.randrange(500))
        live = {place: Live(in_flight=drawn.randrange(40)) for place in places}
        yield ENCODER.encode(
            an_event(
                ids.new("req"),
                key_id=f"key_01kamyq0000000000000000{drawn.randrange(_KEYS):03}",
                usage=usage,
                reported=usage,
                counted=None,
                admitted_at_us=admitted_us,
                finished_at_us=admitted_us + 900_000,
                tags={"app": "desk"},
                decision=_RECORDER.facts(an_ask(), live, (), (), number, admitted_us),
                standing=_RECORDER.packed if number % _AT_ONCE == 0 else b"",
            )
        )
