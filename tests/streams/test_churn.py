"""Three of ten clients leave at any moment: afterwards nothing is lost, and every request that
reached the backend is in the ledger, once, with the backend's figures.
"""

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway import clock
from tests.scripted_backend import Entry
from tests.streams.churner import Got, Job, Result
from tests.streams.rig import MODEL, Rig, rig

LEAST_REQUESTS_PER_S = 5  # on a busy machine; a free one does two hundred
MOST_GROWTH_MIB = 10.0


def test_after_a_churn_nothing_is_lost_and_the_ledger_is_the_backends_book(shared: Rig) -> None:
    churned(shared, seconds=8.0, rest_s=0.0)


@pytest.mark.long
def test_after_ten_minutes_of_churn_nothing_is_lost_and_nothing_has_grown(tmp_path: Path) -> None:
    with rig(tmp_path / "home") as r, weighed(r) as weights:
        churned(r, seconds=600.0, rest_s=0.1)
    assert grown_mib(weights) <= MOST_GROWTH_MIB, weights


def grown_mib(weights: Sequence[float]) -> float:
    settled = weights[len(weights) // 5 :]  # by then everything there is has been loaded once
    return max(settled) - settled[0]


def churned(r: Rig, seconds: float, rest_s: float) -> int:
    """How many requests reached the backend; AssertionError where anything of them is lost."""
    began_us, spent_before = clock.now_us(), r.spent_picos()
    churn = _drive(r, seconds=seconds, rest_s=rest_s)
    assert churn.failures == {}
    assert sum(churn.left.values()) + churn.whole >= seconds * LEAST_REQUESTS_PER_S
    assert all(churn.left.values())
    took = r.until_nothing_is_left(r.resting, within_s=60)  # 4 s is what an idle connection lives

    again = _drive(r, seconds=0.0, requests=100, leaving=0.0)
    assert (again.whole, again.failures) == (100, {})
    r.until_nothing_is_left(r.resting, within_s=60)

    book = r.book()
    rows = r.ledger(len(book), began_us)
    _agree(rows, book, churn.got + again.got)
    spent = sum(row.counter_nanos for row in rows) * 1_000
    assert r.spent_picos() == [before + spent for before in spent_before]
    print(
        f"\n{len(book)} requests in {seconds:.0f} s, {churn.whole} whole, given up {churn.left};"
        f" nothing left after {took:.1f} s; {r.resident_mib():.0f} MiB;"
        f" {dict(Counter((row.provenance, row.status) for row in rows))}"
    )
    return len(book)


def _drive(r: Rig, **job: Any) -> Result:
    told = Job(host=r.url.host, port=r.url.port or 80, key=r.key, model=MODEL, **job)
    answer = subprocess.run(
        [sys.executable, "-m", "tests.streams.churner"],
        input=msgspec.json.encode(told) + b"\n",
        stdout=subprocess.PIPE,
        check=True,
    )
    assert answer.stdout.endswith(b"\n"), f"{len(answer.stdout)} bytes: {answer.stdout[-300:]!r}"
    return msgspec.json.decode(answer.stdout, type=Result)


def _agree(rows: list[Any], book: list[Entry], got: list[Got]) -> None:
    entries = {entry.request_id: entry for entry in book}
    assert len(entries) == len(book) == len(rows)
    assert {row.request_id for row in rows} == set(entries)
    seen = {each.request_id: each for each in got}
    for row in rows:
        entry, each = entries[row.request_id], seen.get(row.request_id)
        if row.provenance == "reported":
            assert row.input_tokens == entry.prompt_tokens
            assert row.output_tokens == entry.generated_tokens
            assert each is None or not each.whole or each.tokens == row.output_tokens
        else:
            # It left before the backend said what it used: never billed beyond what was made.
            assert each is None or not each.whole
            assert row.status == 499
            assert row.output_tokens <= entry.generated_tokens


@contextmanager
def weighed(r: Rig) -> Iterator[list[float]]:
    """MiB of the worker, every five seconds."""
    weights: list[float] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(5):
            weights.append(r.resident_mib())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield weights
    finally:
        over.set()
        watching.join()
