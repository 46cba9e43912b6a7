"""Policies: POST and PUT draft a version; activate, shadow and retire move it between states."""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from gateway import clock, ids, standing
from gateway.admin.cost_sight import EXPECTED, as_seen
from gateway.admin.facts import Facts
from gateway.admin.fields import Id, ModelName, scope_of
from gateway.admin.opening import open_accounts
from gateway.admin.operation import Answer, Call, Filter, Operation
from gateway.admin.policy_document import POLICY, POLICY_PAGE, POLICY_VIEW, READ_ONLY
from gateway.admin.policy_references import doubts, require_known
from gateway.admin.problems import Fault, ProblemError, conflict, invalid, missing
from gateway.admin.resource import filters, page
from gateway.admin.roles import Right
from gateway.admin.scoped import ScopedPage, place
from gateway.stores.sql import models, policies, rows, tenants
from gateway.stores.sql.records import TakenError
from policies.document import DocumentError, PolicyDocument, canonical, load, parse
from policies.schema import document_schema

_SCHEMA: Final = document_schema()


TagName = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9_.-]{1,32}$",
        extra={"rule": "named in at most 32 lower-case letters, digits and _ . -"},
    ),
]
TagValue = Annotated[
    str,
    Meta(
        pattern=r"^[\x20-\x7e]{1,64}$",
        extra={"rule": "text of 1 to 64 printable characters"},
    ),
]


class PolicyPage(ScopedPage, frozen=True, forbid_unknown_fields=True):
    name: Filter | None = None


Reason = Annotated[str, Meta(min_length=1, max_length=256)]


class Version(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which version is meant; left out: the newest."""

    version: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which version is meant (left out: the newest; of retire: the one in force), and why."""

    version: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    reason: Reason | None = None


class Because(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: Reason | None = None


class Whole(msgspec.Struct, frozen=True):
    """A policy's versions, the newest first, and what became of them. `unknown`: the models that
    they lead to and nobody has.
    """

    versions: tuple[rows.Policy, ...]
    history: tuple[rows.PolicyStep, ...]
    unknown: frozenset[str] = frozenset()


class Explain(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request that might be made, to be decided without making it."""

    key_id: Id
    model: ModelName
    input_tokens: Annotated[int, Meta(ge=0, le=10_000_000)] = 1000
    max_tokens: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    stream: bool = False
    service_tier: Literal["auto", "standard", "batch", "flex", "priority"] | None = None
    tags: dict[TagName, TagValue] = {}  # as the client would claim them
    at: str | None = None  # RFC 3339; null: now


async def _list(call: Call) -> Answer:
    size = call.query.limit

    def work(connection: Connection) -> list[Whole]:
        newest = policies.page(
            connection, filters(call.query), call.query.cursor, size + 1,
            call.visible(connection, "policies"), descending=call.query.descending,
        )  # fmt: skip
        return [_whole(connection, each.id) for each in newest]

    found = await call.read(work)
    items = [_view(call, each, each.versions[0]) for each in found[:size]]
    return Answer(page(items, [each.versions[0] for each in found], size))


async def _create(call: Call) -> Answer:
    document = _document(call.tree)

    def work(connection: Connection) -> Whole:
        require_known(connection, document)
        kind, scope_id, tenant_id = place(
            connection, scope_of(document.scope_kind, document.scope_id), None
        )
        policy = rows.Policy(
            id=ids.new("policy"),
            policy_version=1,
            name=document.name,
            scope_kind=kind,
            scope_id=scope_id,
            tenant_id=tenant_id,
            state="draft",
            document=canonical(document),
            created_at_us=clock.now_us(),
        )
        call.changed(connection, "policies", None, policy)
        try:
            policies.add(connection, policy, _by(call, call.query.reason))
        except TakenError:
            raise conflict(
                "already_exists", "there is a policy of this name in this scope already"
            ) from None
        return _whole(connection, policy.id)

    whole = await call.change(work)
    policy = whole.versions[0]
    return Answer(_view(call, whole, policy), policy.version, f"/admin/v1/policies/{policy.id}")


async def _read(call: Call) -> Answer:
    whole = await call.read(lambda connection: _whole(connection, call.id))
    versions = whole.versions
    return Answer(_view(call, whole, _chosen(versions, call.query.version)), versions[0].version)


async def _replace(call: Call) -> Answer:
    tree = call.tree
    if isinstance(tree, dict):
        tree = {name: value for name, value in tree.items() if name not in READ_ONLY}
    document = _document(tree)

    def work(connection: Connection) -> Whole:
        whole = _whole(connection, call.id)
        newest = whole.versions[0]
        call.require_version(newest.version)
        place(connection, scope_of(document.scope_kind, document.scope_id), newest)
        if document.name != newest.name:
            raise invalid("name", "the name cannot change", "make another policy of that name")
        if canonical(document) == newest.document:
            return whole
        require_known(connection, document)
        drafted = msgspec.structs.replace(
            newest,
            policy_version=newest.policy_version + 1,
            version=newest.version + 1,
            state="draft",
            document=canonical(document),
        )
        call.changed(connection, "policies", newest, drafted)
        policies.add_version(connection, drafted, clock.now_us(), _by(call, call.query.reason))
        return _whole(connection, call.id)

    whole = await call.change(work)
    return Answer(_view(call, whole, whole.versions[0]), whole.versions[0].version)


async def _delete(call: Call) -> Answer:
    def work(connection: Connection) -> None:
        newest = _whole(connection, call.id).versions[0]
        call.require_version(newest.version)
        call.changed(connection, "policies", newest, None)
        policies.remove(connection, call.id)

    await call.change(work)
    return Answer()


async def _move(call: Call, state: str) -> Answer:
    asked = call.body(Step)
    wanted = asked.version

    def work(connection: Connection) -> Whole:
        whole = _whole(connection, call.id)
        versions = whole.versions
        call.require_version(versions[0].version)
        if wanted is None and state == "retired":
            chosen = next((each for each in versions if each.state == "active"), versions[0])
        else:
            chosen = _chosen(versions, wanted)
        if chosen.state == state:
            return whole
        if state == "shadow" and chosen.state == "active":
            raise conflict("active", "an active version has no shadow; retire it first")
        policies.set_state(connection, chosen, state, clock.now_us(), _by(call, asked.reason))
        after = _whole(connection, call.id)
        call.changed(
            connection, "policies", chosen, chosen,
            facts_before=_states(versions),
            facts_after={**_states(after.versions), "reason": asked.reason},
        )  # fmt: skip
        return after

    whole = await call.change(work)
    shown = _chosen(whole.versions, wanted)
    if state == "active":
        await _open_hours(call, shown)
    return Answer(_view(call, whole, shown), whole.versions[0].version)


async def _open_hours(call: Call, policy: rows.Policy) -> None:
    """What it counts by the hour begins with what was spent of this one."""
    if load(policy.document).max_per_team_hour is None:
        return
    tenant = await call.read(
        lambda connection: tenants.RECORDS.one(connection, id=policy.tenant_id)
    )
    if tenant is not None:
        await open_accounts(call.deps, tenant)


def _by(call: Call, reason: str | None) -> policies.By:
    return policies.By(call.principal.name, reason)


def _states(versions: tuple[rows.Policy, ...]) -> Facts:
    """Which version is in force, which decides without effect, and what became of the others."""
    return {"states": {str(each.policy_version): each.state for each in versions}}


async def _activate(call: Call) -> Answer:
    return await _move(call, "active")


async def _shadow(call: Call) -> Answer:
    return await _move(call, "shadow")


async def _retire(call: Call) -> Answer:
    return await _move(call, "retired")


async def _explain(call: Call) -> Answer:
    if call.deps.explain is None:
        raise ProblemError(503, "not_available", "this process cannot explain decisions")
    return Answer(as_seen(call, await call.deps.explain(call.body(Explain)), EXPECTED))


async def _schema(_call: Call) -> Answer:
    return Answer(_SCHEMA)


def _document(tree: Any) -> PolicyDocument:
    """422 with every problem of the document, each with its remedy."""
    try:
        return parse(tree)
    except DocumentError as fault:
        errors = [Fault(each.path, each.message, each.remedy) for each in fault.problems]
        raise ProblemError(422, "invalid_policy", str(fault), errors) from None


def _whole(connection: Connection, policy_id: str) -> Whole:
    versions = policies.versions(connection, policy_id)
    if not versions:
        raise missing("policy", policy_id)
    named = {name for each in versions for name, _ in doubts(load(each.document))}
    unknown = {name for name in named if not models.RECORDS.exists(connection, name=name)}
    return Whole(versions, policies.history(connection, policy_id), frozenset(unknown))


def _warnings(call: Call, whole: Whole, chosen: rows.Policy) -> list[str]:
    """None of a retired version: what it requires applies to no request."""
    if chosen.state == "retired":
        return []
    written = load(chosen.document)
    warned = standing.warning(written.residency, call.deps.jurisdictions)
    found = [] if warned is None else [warned]
    return found + [said for name, said in doubts(written) if name in whole.unknown]


def _chosen(versions: tuple[rows.Policy, ...], wanted: int | None) -> rows.Policy:
    if wanted is None:
        return versions[0]
    for each in versions:
        if each.policy_version == wanted:
            return each
    raise invalid("version", f"the newest version is {versions[0].policy_version}")


def _view(call: Call, whole: Whole, chosen: rows.Policy) -> dict[str, Any]:
    """The document as it was written, with what is known of its versions around it."""
    versions = whole.versions
    in_state = {each.state: each.policy_version for each in versions}
    written = msgspec.json.decode(chosen.document)
    return {
        "id": chosen.id,
        "tenant_id": chosen.tenant_id,
        **written,
        "version": chosen.policy_version,
        "state": chosen.state,
        "active_version": in_state.get("active"),
        "shadow_version": in_state.get("shadow"),
        "versions": [{"version": each.policy_version, "state": each.state} for each in versions],
        "history": [
            {
                "version": each.policy_version,
                "state": each.state,
                "at": clock.rfc3339(each.at_us),
                "author": each.author,
                "reason": each.reason,
            }
            for each in whole.history
        ],
        "warnings": _warnings(call, whole, chosen),
        "created_at": clock.rfc3339(chosen.created_at_us),
    }


def operations() -> list[Operation]:
    member, answers = "/policies/{id}", POLICY_VIEW
    return [
        Operation(
            "GET", "/policies", "policies", "List policies, the newest version of each", _list,
            right=Right.POLICIES_READ, query=PolicyPage, answers=POLICY_PAGE,
        ),
        Operation(
            "POST", "/policies", "policies", "Draft a policy", _create,
            right=Right.POLICIES_CHANGE, status=201, query=Because, body=POLICY, answers=answers,
            etag=True, refusals=(409, 422),
        ),
        Operation(
            "GET", "/policies/schema", "policies", "The JSON Schema of a policy document", _schema,
            right=Right.POLICIES_READ, answers={"type": "object"},
        ),
        Operation(
            "GET", member, "policies", "Read a policy", _read,
            right=Right.POLICIES_READ, query=Version, answers=answers, etag=True,
            refusals=(404, 422),
        ),
        Operation(
            "PUT", member, "policies", "Draft the next version of a policy", _replace,
            right=Right.POLICIES_CHANGE, query=Because, body=POLICY, answers=answers, etag=True,
            if_match=True, refusals=(404, 412, 422),
        ),
        Operation(
            "DELETE", member, "policies", "Delete a policy with all versions", _delete,
            right=Right.POLICIES_CHANGE, status=204, if_match=True, refusals=(404, 412),
        ),
        *(
            Operation(
                "POST", f"{member}/{verb}", "policies", summary, run,
                right=Right.POLICIES_CHANGE, body=Step, body_optional=True, answers=answers,
                etag=True, if_match=True, refusals=(404, 409, 412, 422),
            )
            for verb, summary, run in (
                ("activate", "Put a version in force; the one before it retires", _activate),
                ("shadow", "Let a version decide without effect", _shadow),
                ("retire", "Take a version out of force", _retire),
            )
        ),
        Operation(
            "POST", "/policies/explain", "policies", "Decide a request without making it", _explain,
            right=Right.POLICIES_READ, body=Explain, answers=dict[str, Any],
            refusals=(404, 422, 503),
        ),
    ]  # fmt: skip
