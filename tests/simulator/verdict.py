"""What must be true when everything has come to rest: rows, figures and counters against what the
workers sent and the backends did. The laws after every write are in laws.py.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from billing.meters import Provenance
from billing.usage import UNKNOWN_ATTEMPT, UsageEvent
from gateway.stores.counted import Counted
from gateway.stores.recount import asked_of
from tests.simulator.backend import Work
from tests.simulator.laws import Asked, Laws
from tests.simulator.ledger import Ledger
from tests.simulator.store import QuotaStore
from tests.simulator.violation import Violation

MOST_UNMARKED: Final = 256 + 400  # tokens between two checkpoints, and the piece that passed them

Book = Mapping[tuple[str, int], Work]


def at_rest(laws: Laws, store: QuotaStore, ledger: Ledger, book: Book, *, gentle: bool) -> None:
    """`gentle`: no fault of this world can make a hold end before its worker ended it."""
    left = [id_ for id_, hold in store.state.holds.items() if hold is not None]
    if left:
        raise Violation("L10", f"{len(left)} holds are left", left[0])
    if any(store.state.slots.values()):
        raise Violation("L10", "a place of a concurrency limit is taken for ever")
    laws.whole(store.state)
    known = laws.asked.keys() | laws.forgotten | laws.unheld.keys()
    for request_id in ledger.of_request.keys() - known:
        raise Violation("L4", f"{request_id} has a row and was never admitted", request_id)
    for request_id in sorted(known):
        rows = ledger.of_request.get(request_id, [])
        asked = laws.asked.get(request_id)
        _rows(laws, request_id, rows, asked, gentle=gentle)
        _figures(laws, request_id, rows, book)
        if asked is not None and not laws.store_lost and request_id not in laws.unheld:
            _counters(laws, request_id, rows, asked, gentle=gentle)


def none_lent(store: QuotaStore) -> None:
    """L1: every lease has ended, and nothing is set aside for one."""
    for key, balance in store.state.accounts.items():
        if balance.leased:
            raise Violation("L1", f"{key} has {balance.leased} leased to nobody")


def counted(store: QuotaStore, ledger: Ledger, wanted: list[Counted]) -> None:
    """L7: after a look at all of them, counters are what the ledger adds up to."""
    asked = {one.key: asked_of(one) for one in wanted}
    due = ledger.totals(set(asked.values()), ())
    for key, one in asked.items():
        shown = store.state.accounts.get(key)
        if shown is not None and shown.posted != due[one]:
            raise Violation("L7", f"{key} shows {shown.posted}, the ledger has {due[one]}")


def _rows(
    laws: Laws, request_id: str, rows: list[UsageEvent], asked: Asked | None, *, gentle: bool
) -> None:
    """L4, L5: one row an attempt that was sent, none for any other, one winner at most."""
    net: Counter[int] = Counter()
    winners = 0
    for row in rows:
        sign = -1 if row.hold == "reversed" else 1
        net[row.attempt] += sign
        winners += sign * row.winner
    sent = laws.sent.get(request_id, set())
    booked = {attempt for attempt, count in net.items() if count}
    if winners > 1 or any(count not in (0, 1) for count in net.values()):
        raise Violation("L5", f"{request_id} is booked more than once: {dict(net)}", request_id)
    guessed = UNKNOWN_ATTEMPT in booked
    booked.discard(UNKNOWN_ATTEMPT)
    if guessed and (booked or gentle):
        raise Violation("L4", f"{request_id} is booked as what was and as a guess", request_id)
    if laws.has_evidence(request_id):
        # A guess may stand for what was never sent: a machine that does not have the spool
        # cannot know, once the hold of a stalled worker has expired.
        if booked != sent:
            what = f"{request_id} was sent as {sorted(sent)} and is booked as {sorted(booked)}"
            raise Violation("L4", what, request_id)
    elif not booked <= sent:
        raise Violation("L4", f"{request_id} is booked as {sorted(booked)}", request_id)
    elif not sent or asked is None or request_id in laws.unheld:
        return  # of who was cut off, the machine may be gone with the only word of it
    elif not (booked or guessed):
        raise Violation("L10", f"{request_id} was sent and forgotten", request_id)


def _figures(laws: Laws, request_id: str, rows: list[UsageEvent], book: Book) -> None:
    """What the backend reported is billed to the token; an estimate stays within its bound."""
    undone = {row.event_id.removesuffix(":reversed") for row in rows if row.hold == "reversed"}
    for row in rows:
        work = book.get((request_id, row.attempt))
        if row.hold == "reversed" or row.event_id in undone or not row.winner:
            continue
        done = (0, 0) if work is None else (work.input_tokens, work.output_tokens)
        billed = row.usage.all_input, row.usage.output
        if row.attempt == UNKNOWN_ATTEMPT:
            continue
        if row.provenance is Provenance.REPORTED and billed != done:
            raise Violation("L4", f"{row.event_id} is billed {billed}, was {done}", request_id)
        if billed[1] > done[1]:
            raise Violation("L10", f"{row.event_id} is billed {billed} of {done}", request_id)
        sure = request_id not in laws.unmarked and laws.has_evidence(request_id)
        if sure and row.stream and done[1] - billed[1] > MOST_UNMARKED:
            raise Violation("N13", f"{row.event_id} is billed {billed} of {done}", request_id)


def _counters(
    laws: Laws, request_id: str, rows: list[UsageEvent], asked: Asked, *, gentle: bool
) -> None:
    """L7, L9: what was posted is what the ledger says, in the window the ledger says. It may be
    something else only where a hold was ended for want of evidence that came to light later.
    """
    for row in rows:
        at_ms = row.admitted_at_us // 1000
        for account in asked.ask.accounts:
            if not account.start_ms <= at_ms < account.end_ms:
                what = f"{row.event_id} is in another window than its hold on {account.id}"
                raise Violation("L9", what, request_id)
    posted = 0 if asked.ended is None else asked.ended[0]
    booked = sum(row.counter_nanos for row in rows)
    explained = asked.reaped or not laws.has_evidence(request_id)
    if posted != booked and (gentle or not explained):
        what = f"{request_id} has {posted} posted and {booked} booked"
        raise Violation("L7", what, request_id)
