"""What the spools of this home know that a store without its state does not: what was spent and
the ledger has not heard of, and which requests are living.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec
from msgspec.structs import replace
from sqlalchemy import Engine

from billing.money import counter_units
from billing.rating import rate
from billing.usage import DECODER, UsageEvent
from gateway.jobs.evidence import (
    Findings,
    Unheld,
    ended_by_living,
    findings,
    surroundings,
    template_of,
    unheld_in,
)
from gateway.stores import lease_file, spooled
from gateway.stores.counted import Counted
from gateway.stores.lease_file import Kept
from gateway.stores.redis import cuts
from gateway.stores.redis.channel import Channels
from gateway.stores.spool import Outcome, Record
from gateway.stores.sql import usage
from gateway.stores.sql.corrections import is_weak
from policies.budgets import MAX_COUNTER, MAX_TOKENS, NO_CAP, Account, Admission, Settlement


class Living(msgspec.Struct, frozen=True):
    """A request that has not ended, and the template that its hold bore."""

    hold_id: str
    meta: bytes
    template: UsageEvent
    owner: str


class Known(msgspec.Struct, frozen=True):
    """`events` are not in the ledger. `unheld`: those requests of theirs that were admitted without
    the store; `booked` of them are in it, and their living writers may have yet to post them.
    `lent` is what living writers have on lease, less what they have spent of it.
    """

    events: tuple[UsageEvent, ...]
    living: tuple[Living, ...]
    unheld: Mapping[str, Unheld] = {}
    booked: tuple[UsageEvent, ...] = ()
    lent: tuple[Kept, ...] = ()


def known(engine: Engine, spool_dir: Path, tag: str) -> Known:
    """All that the spools know of the tenants of one tag. Of dead writers the very events that
    their replay hands in, but for those that only a hold would make true.
    """
    around = surroundings(engine)
    events: list[UsageEvent] = []
    living: list[Living] = []
    unheld: dict[str, Unheld] = {}
    booked: list[UsageEvent] = []
    lent: list[Kept] = []
    for writer in spooled.writers(spool_dir):
        try:
            with spooled.adopted(writer):
                found = findings(engine, writer, around.places)
                events += [event for event in found.events if not is_weak(event)]
                unheld |= found.unheld
        except spooled.WriterAlive:
            with suppress(FileNotFoundError):  # replayed, or a segment acknowledged, just now
                one = by_living(
                    list(spooled.read(writer)),
                    lease_file.read(writer),
                    writer.name,
                    partial(usage.missing, engine),
                )
                events += one.events
                living += one.living
                unheld |= one.unheld
                booked += one.booked
                lent += one.lent
    return Known(
        tuple(event for event in events if around.tags.get(event.tenant_id) == tag),
        tuple(one for one in living if around.tags.get(one.template.tenant_id) == tag),
        unheld,
        tuple(event for event in booked if around.tags.get(event.tenant_id) == tag),
        tuple(one for one in lent if one.tag == tag),
    )


def by_living(
    spoken: Sequence[Record],
    leases: Iterable[Kept],
    owner: str,
    missing: Callable[[list[str]], Collection[str]],
) -> Known:
    """What the spool and the lease file of one living writer say. `missing`: which events, by their
    ids, the ledger does not have.
    """
    said, living = of_living(spoken, owner)
    unknown = missing([event.event_id for event in said])
    going_on = spooled.open_requests(spoken)  # how they end, their writer will post itself
    ended = [one for one in spoken if isinstance(one, Outcome) and one.hold_id not in going_on]
    unheld = unheld_in(ended)
    booked = (event for event in said if event.event_id not in unknown)
    return Known(
        tuple(event for event in said if event.event_id in unknown),
        tuple(living),
        unheld,
        tuple(event for event in booked if event.request_id in unheld),
        tuple(left_of(leases, ended)),
    )


def left_of(leases: Iterable[Kept], ended: Iterable[Outcome]) -> list[Kept]:
    """The leases without what requests that have ended cost: that is posted by itself. What is not
    in the spool any more is set aside once more than it need be, until the worker gives it back.
    """
    spent: dict[str, int] = {}
    for one in ended:
        paid = [lease_id for lease_id in one.leases if lease_id]
        money = DECODER.decode(one.event).counter_nanos if paid else 0
        for lease_id in paid:
            spent[lease_id] = spent.get(lease_id, 0) + money
    return [replace(one, amount=max(0, one.amount - spent.get(one.lease_id, 0))) for one in leases]


def of_living(spoken: Iterable[Record], owner: str) -> tuple[list[UsageEvent], list[Living]]:
    """What the spool of a living writer says: how requests ended, and which have not."""
    records = list(spoken)
    said = [DECODER.decode(record.event) for record in records if isinstance(record, Outcome)]
    living = []
    for hold_id, request in spooled.open_requests(records).items():
        template = None if request.intent is None else template_of(request.intent)
        paid = request.intent is not None and any(request.intent.leases)  # its lease is the hold
        if request.intent is not None and template is not None and not paid:
            living.append(Living(hold_id, request.intent.meta, template, owner))
    return said, living


def untold(engine: Engine, spool_dir: Path) -> Mapping[str, Findings]:
    """What living workers have ended and the ledger does not have, by tag."""
    missing = partial(usage.missing, engine)
    said = []
    for writer in spooled.writers(spool_dir):
        with suppress(FileNotFoundError):  # a segment was acknowledged, or the spool replayed
            if spooled.is_alive(writer):
                said.append(ended_by_living(list(spooled.read(writer)), missing))
    found = all_of(said)
    tags = surroundings(engine).tags if found.events else {}
    by_tag: dict[str, list[UsageEvent]] = {}
    for event in found.events:
        if event.tenant_id in tags:
            by_tag.setdefault(tags[event.tenant_id], []).append(event)
    return {tag: replace(found, events=tuple(events)) for tag, events in by_tag.items()}


def all_of(said: Iterable[Findings]) -> Findings:
    """How requests ended that several writers tell of."""
    events: list[UsageEvent] = []
    closing: set[str] = set()
    unheld: dict[str, Unheld] = {}
    for one in said:
        events += one.events
        closing |= one.closing
        unheld |= one.unheld
    return Findings(tuple(events), frozenset(closing), (), (), unheld)


def lifted(hold_id: str) -> Settlement:
    """Ends the hold of a request that has ended: nothing is posted in its place, and unlike a
    release it gives no idempotency key back.
    """
    return Settlement(hold_id, 0, 0)


class Over(msgspec.Struct, frozen=True):
    """Requests that ended while their holds were put back. `events` are what they came to, and
    `unheld` those of them that were admitted without the store.
    """

    hold_ids: frozenset[str]
    events: tuple[UsageEvent, ...] = ()
    unheld: Mapping[str, Unheld] = {}


def done(spool_dir: Path, placed: Iterable[Living]) -> Over:
    """The holds whose requests have ended by now, as the spools say. What a writer left open that
    has died since, or lost with its machine, is for its replay or the reaper to end: a hold that
    is taken away here leaves them nothing to bill.
    """
    by_owner = of_owners(placed)
    found = []
    for writer in spooled.writers(spool_dir):
        mine = by_owner.pop(writer.name, set())
        with suppress(FileNotFoundError):  # it is being replayed: that ends them
            alive = spooled.is_alive(writer)
            records = spooled.read(writer) if mine else ()
            found.append(over_in(records, mine, writer_lives=alive))
    # Those whose spools are gone were replayed to the end.
    return together([*found, Over(frozenset().union(*by_owner.values()))])


def of_owners(placed: Iterable[Living]) -> dict[str, set[str]]:
    """Their holds, by the name of the spool that would know."""
    by_owner: dict[str, set[str]] = {}
    for one in placed:
        by_owner.setdefault(one.owner, set()).add(one.hold_id)
    return by_owner


def over_in(spoken: Iterable[Record], mine: Collection[str], *, writer_lives: bool) -> Over:
    """Which of the holds of one writer are over by its spool's records, and how."""
    records = [record for record in spoken if record.hold_id in mine]
    over = frozenset(mine) - spooled.open_requests(records).keys()
    if not writer_lives:
        over &= {record.hold_id for record in records}
    ended = [one for one in records if isinstance(one, Outcome) and one.hold_id in over]
    return Over(over, tuple(DECODER.decode(one.event) for one in ended), unheld_in(ended))


def together(found: Sequence[Over]) -> Over:
    unheld: dict[str, Unheld] = {}
    for one in found:
        unheld |= one.unheld
    return Over(
        frozenset().union(*(one.hold_ids for one in found)),
        tuple(event for one in found for event in one.events),
        unheld,
    )


def holds(found: Known, counted: Iterable[Counted], ttl_ms: int) -> list[Admission]:
    """The holds of the living on the accounts in force: the most that their first attempt may
    cost, which is no less than they were granted.
    """
    by_scope: dict[tuple[str, str], list[Counted]] = {}
    for one in counted:
        by_scope.setdefault((one.scope_kind, one.scope_id), []).append(one)
    return [_hold(one, by_scope, ttl_ms) for one in found.living]


def _hold(one: Living, by_scope: dict[tuple[str, str], list[Counted]], ttl_ms: int) -> Admission:
    template = one.template
    path = [("tenant", template.tenant_id), *(("team", team) for team in template.team_path)]
    accounts = [
        _account(counted)
        for scope in (*path, ("key", template.key_id))
        for counted in by_scope.get(scope, ())
        if counted.window.start_us <= template.admitted_at_us < counted.window.end_us
    ]
    money = counter_units(rate(template.usage, template.charge_card), template.currency)
    return Admission(
        hold_id=one.hold_id,
        ttl_ms=ttl_ms,
        input_money=min(money, MAX_COUNTER),
        output_money=0,
        input_tokens=min(template.usage.total, MAX_TOKENS),
        wanted=0,
        least=0,
        choices=1,
        gates=(),
        slots=(),
        accounts=tuple(accounts),
        meta=one.meta,
        owner=one.owner,
    )


def _account(one: Counted) -> Account:
    start_ms, end_ms = one.window.start_us // 1000, one.window.end_us // 1000
    return Account(one.key, NO_CAP, start_ms, end_ms, one.unit, one.scope_id)


async def journaled(channels: Channels, tag: str) -> Sequence[UsageEvent]:
    """The events that wait for the ledger."""
    found = []
    for packed in await cuts.journaled(channels, tag, b"+"):
        with suppress(msgspec.DecodeError):  # the drain sets it aside, and says so
            found.append(DECODER.decode(packed))
    return found
