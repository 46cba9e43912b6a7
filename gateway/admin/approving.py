"""What is drafted first and put in force then: prices, discounts, commitments. What makes one think
of a mistake takes two people; who wrote a row, and who put it in force, stands in it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeVar

import msgspec
from sqlalchemy import Connection

from gateway import clock
from gateway.admin.operation import Answer, Call, Nothing, Operation
from gateway.admin.problems import invalid
from gateway.admin.resource import Resource
from gateway.admin.second_person import require_another
from gateway.stores.sql.records import Records
from gateway.stores.sql.rows import Commitment, Discount, Price

R = TypeVar("R", Price, Discount, Commitment)
State = Literal["draft", "approved"]

DRAFT_IT: Final = 'POST it with "state": "draft"'


def written_state(
    asked: State | None, before: Price | Discount | Commitment | None, noun: str, path: str
) -> str:
    """Of a row that is written: approved at once unless it is drafted; 422 for a PUT that would put
    a draft in force. `path` is that of the noun.
    """
    if before is None:
        return asked or "approved"
    if asked == "approved" and before.state == "draft":
        remedy = f"POST /admin/v1/{path}/{before.id}/approve"
        raise invalid("state", f"a PUT never approves a {noun}", remedy)
    return asked or before.state


def by_a_colleague(path: str) -> str:
    """The remedy where one person does not decide alone."""
    return f"{DRAFT_IT}; a colleague approves it with POST /admin/v1/{path}/{{id}}/approve"


def from_now(row: R) -> R:
    """One that names no day begins when it is approved, not when it was written down."""
    if isinstance(row, Commitment) or row.effective_from_us != row.created_at_us:
        return row
    return msgspec.structs.replace(row, effective_from_us=clock.now_us())


def signed(records: Records[R]) -> Callable[[Call, Connection, R | None, R], None]:
    """Notes who wrote the row as it is, and who put it in force with that."""

    def sign(call: Call, connection: Connection, _before: R | None, after: R) -> None:
        by = call.principal.id
        approved_by = by if after.state == "approved" else None
        row = msgspec.structs.replace(after, drafted_by=by, approved_by=approved_by)
        records.replace(connection, row)

    return sign


@dataclass(frozen=True)
class Approving(Generic[R]):
    """`odd`: why one person does not decide it alone, None where he does; of the row as it would be
    in force. It and `check` raise ProblemError where nobody may.
    """

    resource: Resource[R, Any, Any]
    odd: Callable[[Connection, R], str | None]
    check: Callable[[Connection, R], None] = lambda _connection, _row: None

    def operation(self) -> Operation:
        plural, singular = self.resource.plural, self.resource.singular
        return Operation(
            "POST", f"/{plural}/{{id}}/approve", plural, f"Put a drafted {singular} in force",
            self.approve, right=self.resource.changes, body=Nothing, body_optional=True,
            answers=self.resource.view, etag=True, if_match=True, refusals=(404, 409, 412),
        )  # fmt: skip

    async def approve(self, call: Call) -> Answer:
        call.body(Nothing)

        def work(connection: Connection) -> tuple[R, Any]:
            row = self._approved(call, connection)
            return row, self.resource.facts(connection, row)

        row, facts = await call.change(work)
        return Answer(await self.resource.show(call.deps, row, facts), row.version)

    def _approved(self, call: Call, connection: Connection) -> R:
        """One that is in force already stays as it is."""
        draft = self.resource.row(connection, call)
        call.require_version(draft.version)
        if draft.state == "approved":
            return draft
        approved = msgspec.structs.replace(
            from_now(draft),
            state="approved",
            approved_by=call.principal.id,
            version=draft.version + 1,
        )
        why = self.odd(connection, approved)
        if why is not None:
            require_another(connection, draft.drafted_by, call.principal, why)
        self.check(connection, approved)
        call.changed(connection, self.resource.plural, draft, approved)
        return self.resource.records.replace(connection, approved)
