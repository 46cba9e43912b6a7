"""What a spool says: how attempts ended, and what a dead worker never sent anywhere."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy import Engine

from billing.usage import DECODER, UsageEvent
from gateway.jobs.estimates import Place, estimates, without_evidence
from gateway.stores import spooled
from gateway.stores.spool import Intent, Outcome, Record
from gateway.stores.spooled import OpenRequest
from gateway.stores.sql import backends, models, tenants, usage
from gateway.stores.sql.engine import reading
from policies.accounts import Account

_AT_ONCE: Final = 1_000


class Surroundings(msgspec.Struct, frozen=True):
    """What the configuration adds to a spool: tenants' tags and backends' places."""

    tags: Mapping[str, str]
    places: Mapping[str, Place]


class Unheld(msgspec.Struct, frozen=True):
    """Where a request is to be posted that has no hold; the leases that paid stand beside."""

    accounts: tuple[Account, ...] = ()
    leases: tuple[str, ...] = ()


HELD: Final = Unheld()


class Findings(msgspec.Struct, frozen=True):
    """`events` are those the ledger does not have yet. `closing` of them end the request's hold.
    `untouched` holds reached no backend: (tag, hold id). `lost` requests cannot be told any more:
    their holds expire. `unheld`: the requests that were admitted without the store.
    """

    events: tuple[UsageEvent, ...]
    closing: frozenset[str]
    untouched: tuple[tuple[str, str], ...]
    lost: tuple[str, ...]
    unheld: Mapping[str, Unheld] = {}


def surroundings(engine: Engine) -> Surroundings:
    with reading(engine) as connection:
        upstream = {
            target.backend_id: target.upstream_model
            for model in models.RECORDS.all(connection)
            for target in model.targets
        }
        places = {
            backend.id: Place(backend.region, upstream.get(backend.id, ""))
            for backend in backends.RECORDS.all(connection)
        }
        tags = {tenant.id: tenant.shard for tenant in tenants.RECORDS.all(connection)}
    return Surroundings(tags, places)


def findings(engine: Engine, writer: Path, places: Mapping[str, Place]) -> Findings:
    """All that is still to be done for an adopted spool. Reads the ledger."""
    found = found_in(
        _outcomes(writer),
        spooled.open_requests(spooled.read(writer)),
        places,
        partial(usage.unbooked, engine),
        proves_absence=spooled.proves_absence(writer),
    )
    return msgspec.structs.replace(found, unheld=unheld_in(spooled.read(writer)))


def unheld_in(spoken: Iterable[Record]) -> dict[str, Unheld]:
    """The requests that were admitted without the store."""
    found: dict[str, Unheld] = {}
    for record in spoken:
        if isinstance(record, Intent | Outcome) and record.unheld:
            known = found.get(record.hold_id, HELD)
            found[record.hold_id] = Unheld(record.unheld, record.leases or known.leases)
    return found


def found_in(
    outcomes: Iterator[UsageEvent],
    still_open: Mapping[str, OpenRequest],
    places: Mapping[str, Place],
    not_booked: Callable[[list[UsageEvent]], list[UsageEvent]],
    *,
    proves_absence: bool,
) -> Findings:
    """What follows from a spool's records. `not_booked` says which events the ledger would still
    book; with `proves_absence`, what the records do not say did not happen.
    """
    events: list[UsageEvent] = []
    answered: set[str] = set()
    last_attempt: dict[str, int] = {}
    for part in _parts(outcomes):
        answered.update(event.request_id for event in part if event.winner)
        for event in part:
            known = last_attempt.get(event.request_id, 0)
            last_attempt[event.request_id] = max(known, event.attempt)
        events.extend(not_booked(part))
    untouched: list[tuple[str, str]] = []
    lost: list[str] = []
    for hold_id, request in still_open.items():
        template = None if request.intent is None else template_of(request.intent)
        if request.intent is None or template is None:
            lost.append(hold_id)
        elif not request.unanswered and proves_absence:
            untouched.append((request.intent.tag, hold_id))
        else:
            estimated = estimates(template, request, answered=hold_id in answered, places=places)
            estimated = estimated or [without_evidence(template)]
            last_attempt[hold_id] = max(
                last_attempt.get(hold_id, 0), *(event.attempt for event in estimated)
            )
            answered.update(event.request_id for event in estimated if event.winner)
            events.extend(not_booked(estimated))
    closing = _closing(events, answered, last_attempt)
    return Findings(tuple(events), closing, tuple(untouched), tuple(lost))


def ended_by_living(
    spoken: Sequence[Record], missing: Callable[[list[str]], Collection[str]]
) -> Findings:
    """How requests ended, by the spool of a living writer, of which the ledger knows nothing:
    `missing` says which events, by their ids. How those end that go on, their writer will post.
    """
    going_on = spooled.open_requests(spoken)
    ended = [one for one in spoken if isinstance(one, Outcome) and one.hold_id not in going_on]
    said = [DECODER.decode(one.event) for one in ended]
    answered = {event.request_id for event in said if event.winner}
    last_attempt: dict[str, int] = {}
    for event in said:
        known = last_attempt.get(event.request_id, 0)
        last_attempt[event.request_id] = max(known, event.attempt)
    unknown = missing([event.event_id for event in said])
    untold = [event for event in said if event.event_id in unknown]
    closing = _closing(untold, answered, last_attempt)
    return Findings(tuple(untold), closing, (), (), unheld_in(ended))


def _closing(
    events: list[UsageEvent], answered: set[str], last_attempt: Mapping[str, int]
) -> frozenset[str]:
    return frozenset(
        event.event_id
        for event in events
        if event.winner
        or (event.request_id not in answered and event.attempt == last_attempt[event.request_id])
    )


def _outcomes(writer: Path) -> Iterator[UsageEvent]:
    for record in spooled.read(writer):
        if isinstance(record, Outcome):
            yield DECODER.decode(record.event)


def _parts(events: Iterator[UsageEvent]) -> Iterator[list[UsageEvent]]:
    while part := list(islice(events, _AT_ONCE)):
        yield part


def template_of(intent: Intent) -> UsageEvent | None:
    """Of the time of its admission: the intent has it by the store's clock."""
    try:
        return msgspec.structs.replace(DECODER.decode(intent.meta), admitted_at_us=intent.at_us)
    except msgspec.DecodeError:
        return None
