"""What keys and admin tokens have in common: a secret that is shown once, rotation with an overlap,
revocation for ever.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Protocol, TypeVar

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from gateway import clock, keyring
from gateway.admin import fields
from gateway.admin.deps import AdminDeps
from gateway.admin.facts import Facts
from gateway.admin.operation import Answer, Call, Nothing, Operation
from gateway.admin.problems import conflict, invalid
from gateway.admin.resource import Resource, version_of
from gateway.stores.sql.records import Records
from gateway.stores.sql.turnover import Turnover


class SecretView(msgspec.Struct, frozen=True, kw_only=True):
    """A live secret, by the public part that logs may show: what stands between its first two
    underscores.
    """

    id: str
    created_at: str
    expires_at: str | None


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long the secrets that are replaced live on."""

    overlap_seconds: Annotated[int, Meta(ge=0, le=31_536_000)] = 86_400


class Secret(Protocol):
    """A row of a secret."""

    @property
    def public_id(self) -> str: ...
    @property
    def expires_at_us(self) -> int | None: ...
    @property
    def created_at_us(self) -> int: ...


S = TypeVar("S", bound=msgspec.Struct)


@dataclass(frozen=True)
class Secrets(Generic[S]):
    """Where the secrets of a kind of owner are kept, and how they are told from others."""

    records: Records[S]
    turnover: Turnover
    kind: type[S]
    owner: str  # the column that says whose a secret is
    prefix: str
    # What else is kept of a secret, by the id of the principal who makes it.
    signed: Callable[[Connection, str], dict[str, Any]] = lambda _connection, _by: {}

    def live(self, connection: Connection, owner: Any) -> tuple[S, ...]:
        """Those that still open a door, the oldest first."""
        now_us = clock.now_us()
        found: tuple[Any, ...] = tuple(
            self.records.all(connection, **{self.owner: owner.id}, revoked_at_us=None)
        )
        return tuple(
            each
            for each in sorted(found, key=lambda each: each.created_at_us)
            if each.expires_at_us is None or each.expires_at_us > now_us
        )

    def make(self, connection: Connection, deps: AdminDeps, owner: Any, by: str) -> str:
        """The text of a new one, for the principal `by`. What is kept of it is a keyed hash."""
        made = keyring.make(self.prefix)
        pepper = deps.peppers.by_version[deps.peppers.current]
        kept = self.kind(
            public_id=made.public_id,
            **{self.owner: owner.id},
            digest=keyring.digest(pepper, made.secret),
            pepper_version=deps.peppers.current,
            created_at_us=clock.now_us(),
            **self.signed(connection, by),
        )
        self.records.add(connection, kept)
        return made.text


def shown(secrets: tuple[Secret, ...]) -> tuple[SecretView, ...]:
    return tuple(
        SecretView(
            id=each.public_id,
            created_at=clock.rfc3339(each.created_at_us),
            expires_at=fields.shown_instant(each.expires_at_us),
        )
        for each in secrets
    )


def expiry(expires_at: str | None, now_us: int, *, is_new: bool) -> int | None:
    """Unix microseconds of the body's `expires_at`. 422 for a new owner that has expired."""
    if expires_at is None:
        return None
    at_us = fields.instant(expires_at, "expires_at")
    if is_new and at_us <= now_us:
        raise invalid("expires_at", "this is in the past")
    return at_us


@dataclass(frozen=True)
class Bearer(Generic[S]):
    """The operations by which an owner comes by its secrets. `allowed` raises what forbids the
    principal to give one to this owner; `run` is `Call.change`, or `Call.write` where no worker
    has to know.
    """

    resource: Resource[Any, Any, Any]
    secrets: Secrets[S]
    answers: type[msgspec.Struct]  # the view, with the secret
    noun: str  # in words: "key"
    run: Callable[[Call, Callable[[Connection], Any]], Awaitable[Any]]
    allowed: Callable[[Call, Any], None] = lambda _call, _owner: None

    def operations(self) -> list[Operation]:
        """Those of the resource, but that creating answers the secret; and rotate and revoke."""
        of, right, words = self.resource, self.resource.changes, self.noun
        article = "an" if words[0] in "aeiou" else "a"
        return [
            *(each for each in of.operations() if each.method != "POST"),
            Operation(
                "POST", f"/{of.plural}", of.plural,
                f"Create {article} {words}; its secret is shown this once", self._create,
                right=right, status=201, body=of.body, answers=self.answers, etag=True,
                refusals=(409, 422),
            ),
            Operation(
                "POST", f"/{of.plural}/{{id}}/rotate", of.plural, f"Give the {words} a new secret",
                self._rotate, right=right, body=Rotation, body_optional=True,
                answers=self.answers, etag=True, refusals=(404, 409),
            ),
            Operation(
                "POST", f"/{of.plural}/{{id}}/revoke", of.plural,
                f"Revoke the {words} and all its secrets", self._revoke, right=right, body=Nothing,
                body_optional=True, answers=of.view, etag=True, refusals=(404,),
            ),
        ]  # fmt: skip

    async def _create(self, call: Call) -> Answer:
        body = call.body(self.resource.body)

        def work(connection: Connection) -> tuple[Any, tuple[S, ...], str]:
            owner = self.resource.build(connection, call.deps, body, None)
            self.allowed(call, owner)
            call.changed(connection, self.resource.plural, None, owner)
            with self.resource.unique():
                self.resource.records.add(connection, owner)
            secret = self.secrets.make(connection, call.deps, owner, call.principal.id)
            return owner, self.secrets.live(connection, owner), secret

        return await self._shown_once(call, *await self.run(call, work))

    async def _rotate(self, call: Call) -> Answer:
        overlap_us = call.body(Rotation).overlap_seconds * 1_000_000

        def work(connection: Connection) -> tuple[Any, tuple[S, ...], str]:
            owner = self.resource.row(connection, call)
            if owner.revoked_at_us is not None:
                raise conflict("revoked", f"the {self.noun} is revoked; make a new one")
            self.allowed(call, owner)
            now_us = clock.now_us()
            before = self.secrets.live(connection, owner)
            self.secrets.turnover.retire(connection, owner.id, now_us, now_us + overlap_us)
            owner = self._bumped(connection, owner)
            secret = self.secrets.make(connection, call.deps, owner, call.principal.id)
            after = self.secrets.live(connection, owner)
            call.changed(
                connection, self.resource.plural, owner, owner,
                facts_before=_facts(before), facts_after=_facts(after),
            )  # fmt: skip
            return owner, after, secret

        return await self._shown_once(call, *await self.run(call, work))

    async def _revoke(self, call: Call) -> Answer:
        call.body(Nothing)

        def work(connection: Connection) -> Any:
            owner = self.resource.row(connection, call)
            if owner.revoked_at_us is not None:
                return owner
            now_us = clock.now_us()
            self.secrets.turnover.revoke(connection, owner.id, now_us)
            revoked = msgspec.structs.replace(owner, revoked_at_us=now_us)
            call.changed(connection, self.resource.plural, owner, revoked)
            return self._bumped(connection, revoked)

        owner = await self.run(call, work)
        return Answer(await self.resource.show(call.deps, owner, ()), version_of(owner))

    def _bumped(self, connection: Connection, owner: Any) -> Any:
        raised = msgspec.structs.replace(owner, version=owner.version + 1)
        return self.resource.records.replace(connection, raised)

    async def _shown_once(
        self, call: Call, owner: Any, secrets: tuple[S, ...], secret: str
    ) -> Answer:
        view = await self.resource.show(call.deps, owner, secrets)
        once = self.answers(**msgspec.structs.asdict(view), secret=secret)
        return Answer(once, version_of(owner), f"/admin/v1/{self.resource.plural}/{owner.id}")


def _facts(secrets: tuple[Any, ...]) -> Facts:
    """By their public part, and until when they live."""
    return {"secrets": {each.public_id: each.expires_at_us for each in secrets}}
