"""Policies and the versions of their documents. A version's document never changes, its state does;
every step from state to state is noted with who took it, when and why.

Of one policy at most one version is active and at most one is in shadow.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, delete, func, insert, select, update

from gateway.stores.sql.policy_tables import policy_steps
from gateway.stores.sql.records import Records, following, write
from gateway.stores.sql.rows import Policy, PolicyStep
from gateway.stores.sql.tables import policies, policy_versions

MOST_STEPS: Final = 100  # told of one policy, the newest

_DOCUMENT_FIELDS: Final = (
    policy_versions.c.policy_version,
    policy_versions.c.state,
    policy_versions.c.document,
    func.coalesce(policy_versions.c.activated_at_us, 0).label("activated_at_us"),
)
_RECORDS: Final = Records(policies, Policy)
_STEPS: Final = Records(policy_steps, PolicyStep)


class By(msgspec.Struct, frozen=True):
    """Who does something, and why."""

    author: str | None = None
    reason: str | None = None


_NOBODY: Final = By()


def _versions() -> Select[Any]:
    return select(policies, *_DOCUMENT_FIELDS).join(
        policy_versions, policy_versions.c.policy_id == policies.c.id
    )


def active(connection: Connection, **where: str) -> tuple[Policy, ...]:
    """The active version of every policy that has one and whose columns equal `where`."""
    query = _versions().where(policy_versions.c.state == "active").order_by(policies.c.id)
    query = query.where(*(policies.c[name] == value for name, value in where.items()))
    return _RECORDS.rows(connection.execute(query).mappings().all())


def versions(connection: Connection, policy_id: str) -> tuple[Policy, ...]:
    """All versions of one policy, the newest first; empty when there is no such policy."""
    query = _versions().where(policies.c.id == policy_id)
    query = query.order_by(policy_versions.c.policy_version.desc())
    return _RECORDS.rows(connection.execute(query).mappings().all())


def history(connection: Connection, policy_id: str) -> tuple[PolicyStep, ...]:
    """What became of a policy's versions, the newest step first, at most MOST_STEPS."""
    query = select(policy_steps).where(policy_steps.c.policy_id == policy_id)
    query = query.order_by(policy_steps.c.seq.desc()).limit(MOST_STEPS)
    return _STEPS.rows(connection.execute(query).mappings().all())


def page(
    connection: Connection,
    where: Mapping[str, Any],
    after: str | None,
    limit: int,
    only: Iterable[ColumnElement[bool]] = (),
    *,
    descending: bool = False,
) -> tuple[Policy, ...]:
    """The newest version of each policy whose columns equal `where` and that meets all of `only`,
    ordered by id.
    """
    query = _versions().where(policy_versions.c.policy_version == policies.c.latest_version)
    query = query.where(*(policies.c[name] == value for name, value in where.items()), *only)
    beyond, order = following(policies.c.id, after, descending=descending)
    query = query.where(*beyond).order_by(order).limit(limit)
    return _RECORDS.rows(connection.execute(query).mappings().all())


def add(connection: Connection, policy: Policy, by: By = _NOBODY) -> Policy:
    """A new policy with its first version. TakenError when scope and name are in use."""
    write(
        connection,
        insert(policies).values(
            id=policy.id,
            name=policy.name,
            scope_kind=policy.scope_kind,
            scope_id=policy.scope_id,
            tenant_id=policy.tenant_id,
            latest_version=policy.policy_version,
            version=policy.version,
            created_at_us=policy.created_at_us,
        ),
    )
    _add_version(connection, policy, policy.created_at_us, by)
    return policy


def add_version(connection: Connection, policy: Policy, at_us: int, by: By = _NOBODY) -> Policy:
    """One more version of a policy that exists; `policy.version` becomes the row's."""
    connection.execute(
        update(policies)
        .where(policies.c.id == policy.id)
        .values(latest_version=policy.policy_version, version=policy.version)
    )
    _add_version(connection, policy, at_us, by)
    return policy


def set_state(
    connection: Connection, policy: Policy, state: str, at_us: int, by: By = _NOBODY
) -> None:
    """Puts `policy.policy_version` into the state; a version that held it before is retired."""
    of_policy = policy_versions.c.policy_id == policy.id
    if state in {"active", "shadow"}:
        displaced = connection.execute(
            update(policy_versions)
            .where(of_policy, policy_versions.c.state == state)
            .values(state="retired")
            .returning(policy_versions.c.policy_version)
        )
        for version in displaced.scalars().all():
            _note(connection, policy.id, version, "retired", at_us, by)
    _note(connection, policy.id, policy.policy_version, state, at_us, by)
    values: dict[str, Any] = {"state": state}
    if state == "active":
        values["activated_at_us"] = at_us
    connection.execute(
        update(policy_versions)
        .where(of_policy, policy_versions.c.policy_version == policy.policy_version)
        .values(**values)
    )
    connection.execute(
        update(policies).where(policies.c.id == policy.id).values(version=policies.c.version + 1)
    )


def remove(connection: Connection, policy_id: str) -> None:
    connection.execute(delete(policy_steps).where(policy_steps.c.policy_id == policy_id))
    connection.execute(delete(policy_versions).where(policy_versions.c.policy_id == policy_id))
    connection.execute(delete(policies).where(policies.c.id == policy_id))


def _add_version(connection: Connection, policy: Policy, at_us: int, by: By) -> None:
    connection.execute(
        insert(policy_versions).values(
            policy_id=policy.id,
            policy_version=policy.policy_version,
            state=policy.state,
            document=policy.document,
            created_at_us=at_us,
        )
    )
    _note(connection, policy.id, policy.policy_version, policy.state, at_us, by)


def _note(
    connection: Connection, policy_id: str, version: int, state: str, at_us: int, by: By
) -> None:
    last = select(func.coalesce(func.max(policy_steps.c.seq), 0))
    last = last.where(policy_steps.c.policy_id == policy_id)
    connection.execute(
        insert(policy_steps).values(
            policy_id=policy_id,
            seq=connection.execute(last).scalar_one() + 1,
            policy_version=version,
            state=state,
            at_us=at_us,
            author=by.author,
            reason=by.reason,
        )
    )


def by_scope(active: Iterable[Policy]) -> dict[tuple[str, str], list[Policy]]:
    """Those of each scope, by name."""
    found: dict[tuple[str, str], list[Policy]] = {}
    for row in sorted(active, key=lambda each: each.name):
        found.setdefault((row.scope_kind, row.scope_id), []).append(row)
    return found
