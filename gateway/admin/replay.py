"""A draft tried on what was decided before, and what a version in shadow disagrees about."""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from sqlalchemy import Connection, Engine, select

from gateway import clock
from gateway.admin import fields
from gateway.admin.cost_sight import COST, as_seen
from gateway.admin.operation import Answer, Call, Operation
from gateway.admin.problems import invalid, missing
from gateway.admin.roles import Right
from gateway.stores.sql import decisions, policies, rows, tenants
from gateway.stores.sql.decisions import Sealed
from gateway.stores.sql.engine import reading
from gateway.stores.sql.tables import policy_versions, usage_rows
from policies.difference import Difference, Used
from policies.document import PolicyDocument, load
from policies.facts import DocumentRef, Standing
from policies.replay import Draft, Replayer

_WEEK_US: Final = 7 * 86_400_000_000
_AT_ONCE: Final = 500


class ReplayBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Left out: the newest version; the last seven days."""

    policy_id: fields.Id
    version: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    from_: fields.Instant | None = msgspec.field(default=None, name="from")
    to: fields.Instant | None = None


async def _replay(call: Call) -> Answer:
    body = call.body(ReplayBody)
    versions = await _versions(call, body.policy_id)
    if not versions:
        raise invalid("policy_id", f"there is no policy {body.policy_id!r}")
    chosen = versions[0]
    if body.version is not None:
        found = [each for each in versions if each.policy_version == body.version]
        if not found:
            raise invalid("version", f"there is no version {body.version}")
        chosen = found[0]
    now_us = clock.now_us()
    end_us = now_us if body.to is None else fields.instant(body.to, "to")
    start_us = end_us - _WEEK_US if body.from_ is None else fields.instant(body.from_, "from")
    if start_us >= end_us:
        raise invalid("from", "the span is empty: `from` must be before `to`")
    told = await asyncio.to_thread(report, call.deps.engine, chosen, start_us, end_us)
    return Answer(as_seen(call, told, COST))


async def _disagreement(call: Call) -> Answer:
    """Of a version in shadow, since it came there; `version` is null where none is."""
    versions = await _versions(call, call.id)
    if not versions:
        raise missing("policy", call.id)
    shadow = next((each for each in versions if each.state == "shadow"), None)
    if shadow is None:
        return Answer({"policy_id": call.id, "version": None, "decisions": 0, "changed": 0})
    steps = await call.read(lambda connection: policies.history(connection, call.id))
    entered = ("shadow", shadow.policy_version)
    there = [step.at_us for step in steps if (step.state, step.policy_version) == entered]
    since_us = there[0] if there else shadow.created_at_us
    end_us = max(clock.now_us(), since_us + 1)
    told = await asyncio.to_thread(report, call.deps.engine, shadow, since_us, end_us)
    return Answer(as_seen(call, told, COST))


async def _versions(call: Call, policy_id: str) -> tuple[rows.Policy, ...]:
    return await call.read(lambda connection: policies.versions(connection, policy_id))


def report(engine: Engine, chosen: rows.Policy, start_us: int, end_us: int) -> dict[str, Any]:
    """What the version would have changed in [start, end). Reads; writes nothing."""
    draft = Draft(
        chosen.id,
        chosen.policy_version,
        chosen.name,
        chosen.scope_kind,
        chosen.scope_id,
        load(chosen.document),
    )
    documents = _Documents(engine)
    replayer, difference, unknown = Replayer(draft, documents.of), Difference(), 0
    known: dict[bytes, Standing] = {}
    for some in _parts(engine, chosen.tenant_id, start_us, end_us):
        wanted = {each.record.facts.standing for each in some} - known.keys()
        if wanted:
            known |= decisions.standings(engine, sorted(wanted))
        used = _used(engine, [each.record.request_id for each in some])
        for sealed in some:
            standing = known.get(sealed.record.facts.standing)
            if standing is None or not documents.have(standing):
                unknown += 1
                continue
            again = replayer.again(sealed.record, standing)
            if again is not None:
                difference.add(again, used.get(sealed.record.request_id))
    return {
        "policy_id": chosen.id,
        "version": chosen.policy_version,
        "from": clock.rfc3339(start_us),
        "to": clock.rfc3339(end_us),
        "currency": _currency(engine, chosen.tenant_id),
        "unreadable": unknown,
        **difference.plain(),
    }


def _parts(
    engine: Engine, tenant_id: str, start_us: int, end_us: int
) -> Iterator[Sequence[Sealed]]:
    records = decisions.in_span(engine, start_us, end_us)
    mine = (sealed for sealed in records if sealed.record.tenant_id == tenant_id)
    while some := list(islice(mine, _AT_ONCE)):
        yield some


def _used(engine: Engine, request_ids: Sequence[str]) -> dict[str, Used]:
    of = usage_rows.c
    inputs = of.input_tokens + of.cache_read_tokens
    inputs += of.cache_write_5m_tokens + of.cache_write_1h_tokens
    query = select(of.request_id, inputs, of.output_tokens).where(
        of.request_id.in_(request_ids), of.winner
    )
    with reading(engine) as connection:
        return {name: (int(i), int(o)) for name, i, o in connection.execute(query)}


def _currency(engine: Engine, tenant_id: str) -> str:
    with reading(engine) as connection:
        tenant = tenants.RECORDS.one(connection, id=tenant_id)
        return "" if tenant is None else tenant.currency


class _Documents:
    """Versions never change, so each is read once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[tuple[str, int], PolicyDocument | None] = {}

    def of(self, ref: DocumentRef) -> PolicyDocument:
        found = self._find(ref)
        if found is None:
            raise LookupError(ref.policy_id)
        return found

    def have(self, standing: Standing) -> bool:
        """Whether all that was in force then is kept still."""
        return all(self._find(ref) is not None for ref in standing.documents)

    def _find(self, ref: DocumentRef) -> PolicyDocument | None:
        key = (ref.policy_id, ref.policy_version)
        if key not in self._known:
            with reading(self._engine) as connection:
                found = _document(connection, ref)
            self._known[key] = None if found is None else load(found)
        return self._known[key]


def _document(connection: Connection, ref: DocumentRef) -> bytes | None:
    of = policy_versions.c
    query = select(of.document).where(
        of.policy_id == ref.policy_id, of.policy_version == ref.policy_version
    )
    return connection.scalar(query)


def operations() -> list[Operation]:
    right = Right.POLICIES_READ
    return [
        Operation(
            "POST", "/policies/replay", "policies", "Try a version on what was decided before",
            _replay, right=right, body=ReplayBody, answers=dict[str, Any], refusals=(422,),
            description="Every recorded decision of the period that the policy's scope covers is "
            "made again from its facts, with this version in place of the one that was in force. "
            "Nothing is sent and nothing is changed.",
        ),
        Operation(
            "GET", "/policies/{id}/disagreement", "policies",
            "What a version in shadow would have decided otherwise, since it is there",
            _disagreement, right=right, answers=dict[str, Any], refusals=(404,),
        ),
    ]  # fmt: skip
