"""What a number of changes would be answered, without any of them: for `apply --dry-run`.

The operations themselves are run, one after the other, on one transaction that is rolled back. A
later step sees what an earlier one made, and calls it by the id that the caller imagined for it.
What an operation does beside the database is not done, and nothing is told in the audit chain.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from gateway.admin import bodies
from gateway.admin.access import RefusedError
from gateway.admin.operation import Answer, Call, Operation
from gateway.admin.problems import Fault, ProblemError, invalid
from gateway.admin.roles import Right
from gateway.stores.sql.exact import TooLargeError

T = TypeVar("T")

_NOUNS: Final = frozenset(
    {
        "tenants", "teams", "keys", "backends", "models", "prices", "policies", "budgets",
        "grants", "limits", "discounts", "commitments", "loop-breakers",
    }
)  # fmt: skip
_VERBS: Final = frozenset({"POST", "PUT", "DELETE"})

Id = Annotated[str, Meta(pattern="^[a-z]+_[0-9a-z]{26}$")]


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`as` is the id that later steps use for what this one would make."""

    method: Literal["POST", "PUT", "DELETE"]
    path: Annotated[str, Meta(pattern="^/[a-z0-9/_-]+$", max_length=200)]  # below /admin/v1
    body: dict[str, Any] = {}
    as_: Id | None = msgspec.field(default=None, name="as")


class Rehearsal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    steps: Annotated[tuple[Step, ...], Meta(max_length=500)]


class StepView(msgspec.Struct, frozen=True, kw_only=True):
    """What the step would be answered; null where it uses what an earlier one could not make."""

    status: int | None
    code: str | None = None
    detail: str | None = None
    errors: tuple[Fault, ...] = ()


class RehearsalView(msgspec.Struct, frozen=True):
    steps: tuple[StepView, ...]


class _ChangedError(Exception):
    """What a change came to: the operation has no more to do here."""

    def __init__(self, found: Any) -> None:
        super().__init__()
        self.found = found


@dataclass(frozen=True)
class _Rehearsed(Call):
    """A call whose reads and changes are of the transaction under way."""

    connection: Any = None

    async def read(self, work: Callable[[Connection], T]) -> T:
        return work(self.connection)

    async def change(self, work: Callable[[Connection], T]) -> T:
        raise _ChangedError(self._told(self.connection, work))

    async def write(self, work: Callable[[Connection], T]) -> T:
        raise _ChangedError(self._told(self.connection, work))


class _Stage:
    """Of one rehearsal. `made`: imagined ids, and the ids of what was made; None: it was not."""

    def __init__(self, call: Call, table: Sequence[Operation], connection: Connection) -> None:
        self._call, self._table, self._connection = call, table, connection
        self._made: dict[str, str | None] = {}

    def play(self, at: int, step: Step) -> StepView:
        operation, identifier = self._named(at, step)
        named = _strings((step.path.split("/"), step.body), self._made)
        if any(self._made[each] is None for each in named):
            self._keep(step, None)
            return StepView(status=None)
        call = _Rehearsed(
            deps=self._call.deps,
            operation=operation,
            principal=self._call.principal,
            origin=self._call.origin,
            params={"id": self._made.get(identifier) or identifier},
            query=None if operation.query is None else bodies.convert({}, operation.query),
            tree=_called(step.body, self._made),
            if_match=None,
            connection=self._connection,
        )
        try:
            with self._connection.begin_nested():
                self._keep(step, _drive(operation.run(call)))
        except (ProblemError, TooLargeError) as fault:
            self._keep(step, None)
            return self._refused(fault)
        return StepView(status=operation.status)

    def _keep(self, step: Step, identifier: str | None) -> None:
        if step.as_ is not None:
            self._made[step.as_] = identifier

    def _refused(self, fault: ProblemError | TooLargeError) -> StepView:
        if isinstance(fault, TooLargeError):
            return StepView(status=422, code="amount_too_large", detail=str(fault))
        if isinstance(fault, RefusedError):
            self._call.deps.refused(fault.code)
        return StepView(
            status=fault.status, code=fault.code, detail=fault.detail, errors=fault.errors
        )

    def _named(self, at: int, step: Step) -> tuple[Operation, str]:
        """The operation at the step's path, and the id in that."""
        words = step.path.split("/")
        for operation in self._table:
            known = operation.path.split("/")
            if operation.method == step.method and len(known) == len(words):
                pairs = list(zip(known, words, strict=True))
                if all(name in {"{id}", word} for name, word in pairs):
                    return operation, next((w for name, w in pairs if name == "{id}"), "")
        raise invalid(f"steps[{at}].path", f"{step.method} {step.path} cannot be rehearsed")


def _drive(running: Awaitable[Answer]) -> str | None:
    """The id of what was made or changed."""
    steps = running.__await__()
    try:
        next(steps)
    except StopIteration:
        return None
    except _ChangedError as done:
        first = done.found[0] if isinstance(done.found, tuple) and done.found else done.found
        versions = getattr(first, "versions", None)
        return getattr(versions[0] if versions else first, "id", None)
    steps.close()
    raise invalid("path", "what waits for more than the database cannot be rehearsed")


def _called(tree: Any, made: Mapping[str, str | None]) -> Any:
    """The same with the ids of what was made for those that were imagined."""
    if isinstance(tree, dict):
        return {_called(name, made): _called(each, made) for name, each in tree.items()}
    if isinstance(tree, list):
        return [_called(each, made) for each in tree]
    return made.get(tree) or tree if isinstance(tree, str) else tree


def _strings(tree: Any, among: Mapping[str, Any]) -> list[str]:
    if isinstance(tree, dict):
        return _strings((*tree, *tree.values()), among)
    if isinstance(tree, list | tuple):
        return [found for each in tree for found in _strings(each, among)]
    return [tree] if isinstance(tree, str) and tree in among else []


def _rehearsed(call: Call, table: Sequence[Operation], steps: Sequence[Step]) -> list[StepView]:
    with call.deps.engine.connect() as connection, connection.begin() as under_way:
        stage = _Stage(call, table, connection)
        found = [stage.play(at, step) for at, step in enumerate(steps)]
        under_way.rollback()
    return found


def operations(others: Sequence[Operation]) -> list[Operation]:
    """Of all that can be rehearsed among the others."""
    table = [
        each
        for each in others
        if each.noun in _NOUNS and each.method in _VERBS and not each.right.value.endswith(":read")
    ]

    async def rehearse(call: Call) -> Answer:
        steps = call.body(Rehearsal).steps
        return Answer(RehearsalView(tuple(await asyncio.to_thread(_rehearsed, call, table, steps))))

    return [
        Operation(
            "POST", "/rehearsals", "rehearsals", "See what changes would be answered", rehearse,
            right=Right.SELF_READ, body=Rehearsal, answers=RehearsalView, refusals=(422,),
            description="Each step is judged as the request it stands for would be, by what the "
            "steps before it would have made. Nothing is changed, and the audit chain has nothing "
            "of it.",
        )
    ]  # fmt: skip
