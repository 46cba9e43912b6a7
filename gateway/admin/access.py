"""Whether a call may do what it asks for: the table of `roles`, put to the object it names.

Who has only part of the tree is answered alike for what does not exist and for what is out of
sight: 404 where the path names it, 422 where the body does.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol, Self

import msgspec
from sqlalchemy import Connection

from gateway.admin import roles
from gateway.admin.places import NOUNS, REFERENCES, Place, Sight, locate
from gateway.admin.principal import Principal
from gateway.admin.problems import ProblemError, invalid, missing
from gateway.admin.roles import Relation, Right, Role, Verdict


class Asked(Protocol):
    """What is known of a call before it is let in."""

    @property
    def principal(self) -> Principal: ...
    @property
    def right(self) -> Right: ...
    @property
    def noun(self) -> str: ...
    @property
    def named(self) -> str | None:
        """The id in the path; None of an operation on a collection."""

    @property
    def tree(self) -> Any: ...


class RefusedError(ProblemError):
    """Somebody who is known asked for what is not his; answered as any other problem."""

    @classmethod
    def of(cls, problem: ProblemError) -> Self:
        return cls(problem.status, problem.code, problem.detail, problem.errors, problem.headers)


def unlimited(principal: Principal) -> bool:
    """Whether there is nothing to be checked: the platform's administrators may do everything."""
    return principal.role is Role.PLATFORM_ADMIN


def require(connection: Connection, asked: Asked) -> None:
    """ProblemError 404 for what is out of sight, 403 for what the role may not do there."""
    principal = asked.principal
    if asked.named is None:
        if not roles.allowed(principal.role, asked.right):
            raise forbidden(principal, asked.right)
        return
    place = locate(connection, asked.noun, asked.named)
    found = Relation.FOREIGN if place is None else Sight(connection, principal).relation(place)
    _judge(principal, asked.right, found, missing(NOUNS[asked.noun].singular, asked.named))


def require_references(connection: Connection, asked: Asked) -> None:
    """422 for a field of the body that names what is out of sight or does not exist."""
    sight = Sight(connection, asked.principal)
    for field, identifier in _references(asked.tree):
        noun = REFERENCES[field]
        place = locate(connection, noun, identifier)
        if place == Place(asked.principal.tenant_id):
            continue  # the own tenant is known to whoever is inside it
        if place is None or not roles.in_sight(sight.relation(place)):
            unseen = invalid(field, f"there is no {NOUNS[noun].singular} {identifier!r:.80}")
            raise RefusedError.of(unseen)


def require_place(connection: Connection, asked: Asked, noun: str, row: msgspec.Struct) -> None:
    """403 unless the row, as it is about to be written, lies where the role may put it."""
    found = Sight(connection, asked.principal).relation_of(noun, msgspec.structs.asdict(row))
    if found not in roles.allowed(asked.principal.role, asked.right):
        raise forbidden(asked.principal, asked.right)


def forbidden(principal: Principal, right: Right) -> RefusedError:
    where = roles.allowed(principal.role, right)
    detail = f"the role {principal.role.value} has no right to {right.value}"
    if where:
        places = " or ".join(sorted(_WORDS[each] for each in where))
        detail = f"the role {principal.role.value} has {right.value} only {places} its own scope"
    return RefusedError(403, "forbidden", detail)


_WORDS: Final[Mapping[Relation, str]] = {Relation.OWN: "at", Relation.BELOW: "below"}


def _judge(principal: Principal, right: Right, found: Relation, unseen: ProblemError) -> None:
    match roles.verdict(principal.role, right, found):
        case Verdict.UNSEEN:
            raise RefusedError.of(unseen)
        case Verdict.FORBIDDEN:
            raise forbidden(principal, right)


def _references(tree: Any) -> Iterator[tuple[str, str]]:
    """Fields that name objects, in the form in which refusals name them. What has another form
    than an id is refused when the body is read.
    """
    if not isinstance(tree, dict):
        return
    scope = tree.get("scope")
    inside = scope if isinstance(scope, dict) else {}
    for field in REFERENCES:
        outer, _, name = field.partition(".")
        value = inside.get(name) if name else tree.get(outer)
        if isinstance(value, str):
            yield field, value
