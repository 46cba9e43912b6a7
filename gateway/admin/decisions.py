"""Decisions: where each request went and why, and the proof that nobody has touched the record."""

import asyncio
from collections.abc import Sequence
from itertools import islice
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from sqlalchemy import Connection, select

from gateway import clock, ids
from gateway.admin import fields
from gateway.admin.cost_sight import EXPECTED, as_seen
from gateway.admin.operation import Answer, Call, Filter, Operation, PageSize
from gateway.admin.principal import Principal
from gateway.admin.problems import invalid, missing
from gateway.admin.resource import page_of
from gateway.admin.roles import Right
from gateway.signing import Signed
from gateway.stores.sql import backends, decisions
from gateway.stores.sql.decisions import Anchor, Place, Sealed
from gateway.stores.sql.engine import reading
from gateway.stores.sql.tables import usage_rows
from policies import facts
from policies.candidates import Candidate
from policies.explain import explain, named
from policies.explain_hedge import hedge_of
from policies.facts import Standing
from policies.seals import Break

_DAY_US: Final = 86_400_000_000
_MOST_LOOKED_AT: Final = 20_000  # records for one page: a rare filter is answered in parts

Hash = Annotated[
    str, Meta(pattern="^[0-9a-f]{64}$", extra={"rule": "a SHA-256 of 64 hexadecimal digits"})
]
Cursor = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,18}\.[a-z0-9]{1,16}\.[0-9]{1,18}\.[0-9]{1,9}$",
        max_length=80,
        extra={"rule": "the `next` of the page before"},
    ),
]


class DecisionQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`from` is inside, `to` is not; by default the last day. `refusal` is a code, or `any`."""

    from_: fields.Instant | None = msgspec.field(default=None, name="from")
    to: fields.Instant | None = None
    request_id: Filter | None = None
    tenant_id: Filter | None = None
    team_id: Filter | None = None
    key_id: Filter | None = None
    model: Filter | None = None
    refusal: Filter | None = None
    limit: PageSize = 50
    cursor: Cursor | None = None


class Target(msgspec.Struct, frozen=True):
    backend_id: str
    upstream_model: str


class SealView(msgspec.Struct, frozen=True):
    """Where the record is sealed."""

    chain: str
    block: int
    place: int
    at: str


class DecisionView(msgspec.Struct, frozen=True, kw_only=True):
    """`plan` is what would be tried, best first; `refusal` the code, where it came to nothing."""

    id: str
    request_id: str
    decided_at: str
    tenant_id: str
    team_id: str
    key_id: str
    model: str
    degraded_from: str | None  # the model asked for, where a budget or an experiment gave another
    experiment: str | None
    operation: str
    stream: bool
    tags: dict[str, str]
    refusal: str | None
    plan: tuple[Target, ...]
    afforded: tuple[Target, ...] | None  # those it was kept to, where no budget covered the plan
    hedged: int | None  # the number of the attempt that was begun beside a slow one
    shadow: str | None  # the request that went to another model as a shadow of this one
    shadow_of: str | None  # the request that this one was a shadow of
    sealed: SealView


class WentView(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that could have reached a backend, as the ledger has it."""

    attempt: int
    backend_id: str
    upstream_model: str
    region: str
    winner: bool
    status: int


class WholeView(DecisionView, frozen=True, kw_only=True):
    """With every candidate and every reason, and with where the request really went. `known` is
    false while the part that many decisions share has not reached the ledger.
    """

    known: bool
    ask: dict[str, Any]
    candidates: tuple[dict[str, Any], ...]
    policy: dict[str, Any]
    hedge: dict[str, Any] | None  # whether a second attempt stood beside a slow one, and why not
    went: tuple[WentView, ...]


class BrokenView(msgspec.Struct, frozen=True):
    chain: str
    block: int
    reason: str


class HeadView(msgspec.Struct, frozen=True):
    """The last block of a chain: whoever keeps it can hold us to it."""

    chain: str
    block: int
    hash: str
    sealed_at: str


class VerifyView(msgspec.Struct, frozen=True, kw_only=True):
    valid: bool
    blocks: int
    records: int
    retired: Annotated[int, Meta(description="of the records, how many are kept as hashes only")]
    first_broken: BrokenView | None
    heads: tuple[HeadView, ...]


class HeadsView(msgspec.Struct, frozen=True):
    """`signed.statement` says the same as `heads`, and when, in the bytes that were signed."""

    heads: tuple[HeadView, ...]
    signed: Signed | None


class AnchorQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A head that was kept: all three or none."""

    chain: Annotated[str, Meta(pattern="^[a-z0-9]{1,16}$")] | None = None
    block: Annotated[int, Meta(ge=1, le=2**53)] | None = None
    hash: Hash | None = None


async def _list(call: Call) -> Answer:
    query: DecisionQuery = call.query
    found, following = await asyncio.to_thread(_page, call, query)
    standings = await asyncio.to_thread(_standings, call, found)
    items = [_view(each, standings.get(each.record.facts.standing)) for each in found]
    return Answer({"items": items, "next": following})


def _page(call: Call, query: DecisionQuery) -> tuple[list[Sealed], str | None]:
    """One page, and where the next begins: it is also there where too many were passed over."""
    if query.request_id is not None:
        one = _one(call, query.request_id)
        return ([one] if one is not None and _wanted(call.principal, one, query) else []), None
    now_us = clock.now_us()
    end_us = now_us + 1 if query.to is None else fields.instant(query.to, "to")
    start_us = end_us - _DAY_US if query.from_ is None else fields.instant(query.from_, "from")
    if start_us >= end_us:
        raise invalid("from", "the span is empty: `from` must be before `to`")
    after = None if query.cursor is None else _place(query.cursor)
    found: list[Sealed] = []
    last: Sealed | None = None
    records = decisions.in_span(call.deps.engine, start_us, end_us, after)
    for last in islice(records, _MOST_LOOKED_AT):
        if _wanted(call.principal, last, query):
            found.append(last)
            if len(found) == query.limit:
                break
    else:
        if next(records, None) is None:
            return found, None
    return found, None if last is None else ".".join(map(str, last.place))


def _place(cursor: str) -> Place:
    sealed_at, chain, number, at = cursor.split(".")
    return int(sealed_at), chain, int(number), int(at)


def _wanted(principal: Principal, sealed: Sealed, query: DecisionQuery) -> bool:
    record = sealed.record
    if not principal.everywhere and record.tenant_id != principal.tenant_id:
        return False
    if principal.team_id is not None and principal.team_id not in record.team_path:
        return False
    asked = (
        (query.tenant_id, (record.tenant_id,)),
        (query.team_id, record.team_path),
        (query.key_id, (record.key_id,)),
        (query.model, (record.facts.ask.model,)),
        (query.refusal, (record.facts.refusal, "any" if record.facts.refusal else "")),
    )
    return all(value is None or value in them for value, them in asked)


def _one(call: Call, request_id: str) -> Sealed | None:
    with reading(call.deps.engine) as connection:
        return decisions.of_request(connection, request_id)


def _standings(call: Call, found: Sequence[Sealed]) -> dict[bytes, Standing]:
    digests = {sealed.record.facts.standing for sealed in found}
    return decisions.standings(call.deps.engine, sorted(digests))


async def _read(call: Call) -> Answer:
    request_id = ids.request_of(call.id)
    sealed = await asyncio.to_thread(_one, call, request_id)
    if sealed is None:
        raise missing("decision", call.id)
    standings = await asyncio.to_thread(_standings, call, [sealed])
    names = await call.read(_names)
    went = await call.read(lambda connection: _went(connection, request_id))
    whole = _whole(sealed, standings.get(sealed.record.facts.standing), went, names)
    candidates = as_seen(call, whole.candidates, EXPECTED)
    return Answer(msgspec.structs.replace(whole, candidates=candidates))


def _names(connection: Connection) -> dict[str, str]:
    return {each.id: each.name for each in backends.RECORDS.all(connection)}


def _went(connection: Connection, request_id: str) -> tuple[WentView, ...]:
    of = usage_rows.c
    columns = [of[name] for name in WentView.__struct_fields__]
    query = select(*columns).where(of.request_id == request_id).order_by(of.attempt)
    return tuple(WentView(**row) for row in connection.execute(query).mappings())


def _view(sealed: Sealed, standing: Standing | None) -> DecisionView:
    record, decided = sealed.record, sealed.record.facts
    candidates = () if standing is None else standing.candidates
    sealed_at_us, chain, number, at = sealed.place
    return DecisionView(
        id=ids.decision_of(record.request_id),
        request_id=record.request_id,
        decided_at=clock.rfc3339(decided.decided_at_us),
        tenant_id=record.tenant_id,
        team_id=record.team_path[-1],
        key_id=record.key_id,
        model=decided.ask.model,
        degraded_from=decided.degraded_from or None,
        experiment=decided.experiment or None,
        operation=decided.ask.operation,
        stream=decided.ask.stream,
        tags=record.tags,
        refusal=decided.refusal or None,
        plan=_targets(candidates, decided.order),
        afforded=_targets(candidates, decided.afforded) or None,
        hedged=decided.hedged,
        shadow=decided.shadow or None,
        shadow_of=decided.shadow_of or None,
        sealed=SealView(chain, number, at, clock.rfc3339(sealed_at_us)),
    )


def _targets(candidates: Sequence[Candidate], places: Sequence[int]) -> tuple[Target, ...]:
    return tuple(
        Target(candidates[n].backend_id, candidates[n].upstream_model)
        for n in places
        if n < len(candidates)
    )


def _whole(
    sealed: Sealed, standing: Standing | None, went: tuple[WentView, ...], names: dict[str, str]
) -> WholeView:
    told: dict[str, Any] = {"candidates": [], "policy": {}}
    decided = sealed.record.facts
    if standing is not None:
        told = explain(
            standing.policy,
            decided.ask,
            standing.candidates,
            facts.live_of(standing, decided),
            standing.gateway_jurisdictions,
            decided.draw,
        )
        for candidate, against in zip(told["candidates"], decided.against, strict=False):
            candidate["eligible"] = not against
            candidate["codes"] = list(facts.reasons_of(against))
        told = named(told, names)
    return WholeView(
        **msgspec.structs.asdict(_view(sealed, standing)),
        known=standing is not None,
        ask=msgspec.structs.asdict(decided.ask),
        candidates=tuple(told["candidates"]),
        policy=told["policy"],
        hedge=None if standing is None else hedge_of(standing.policy, decided),
        went=went,
    )


async def _verify(call: Call) -> Answer:
    query: AnchorQuery = call.query
    given = (query.chain, query.block, query.hash)
    if None in given and given != (None, None, None):
        raise invalid("chain", "an anchor is a chain, a block and its hash")
    anchors = []
    if query.chain is not None and query.block is not None and query.hash is not None:
        anchors.append(Anchor(query.chain, query.block, bytes.fromhex(query.hash)))
    found = await asyncio.to_thread(decisions.verify, call.deps.engine, anchors)
    fault = found.fault
    return Answer(
        VerifyView(
            valid=fault is None,
            blocks=found.blocks,
            records=found.records,
            retired=found.retired,
            first_broken=None if fault is None else _broken(fault),
            heads=_heads(found.chains),
        )
    )


def _broken(fault: Break) -> BrokenView:
    return BrokenView(fault.chain, fault.number, fault.fault)


async def _head(call: Call) -> Answer:
    heads = _heads(await asyncio.to_thread(decisions.heads, call.deps.engine))
    told = {"heads": heads, "at": clock.rfc3339(clock.now_us())}
    statement = msgspec.json.encode(told, order="deterministic").decode()
    signer = call.deps.signer
    return Answer(HeadsView(heads, None if signer is None else signer.sign(statement)))


def _heads(blocks: Sequence[Any]) -> tuple[HeadView, ...]:
    return tuple(
        HeadView(each.chain, each.number, each.hash.hex(), clock.rfc3339(each.sealed_at_us))
        for each in blocks
    )


def operations() -> list[Operation]:
    right = Right.DECISIONS_READ
    return [
        Operation(
            "GET", "/decisions", "decisions", "List decisions, in the order of their sealing",
            _list, right=right, query=DecisionQuery, answers=page_of(DecisionView),
            refusals=(422,),
            description="A page may hold fewer than asked for and still have a `next`: a rare "
            "filter is answered in parts.",
        ),
        Operation(
            "GET", "/decisions/verify", "decisions", "Check every chain of decisions", _verify,
            right=right, query=AnchorQuery, answers=VerifyView, refusals=(422,),
            description="With a head that was kept elsewhere, also that the chain is still the "
            "one it was the head of.",
        ),
        Operation(
            "GET", "/decisions/head", "decisions", "The heads of the chains, signed", _head,
            right=right, answers=HeadsView,
        ),
        Operation(
            "GET", "/decisions/{id}", "decisions", "Read a decision with every candidate and why",
            _read, right=right, answers=WholeView, refusals=(404,),
        ),
    ]  # fmt: skip
