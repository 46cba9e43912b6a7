"""Who is let in: a bearer token becomes a Principal, or a refusal that says nothing of why.

Nothing is cached: a token that was revoked is refused by the next request to any process. The
token of the environment needs no database.
"""

import asyncio
import hmac
import logging
import os
from typing import Any, Final
from weakref import WeakValueDictionary

import msgspec
from litestar import Request

from gateway import clock, ids, keyring
from gateway.admin.deps import AdminDeps
from gateway.admin.failures import Failures
from gateway.admin.principal import BOOTSTRAP, Principal
from gateway.admin.problems import ProblemError
from gateway.admin.roles import Role
from gateway.stores.sql import admin_tokens
from gateway.stores.sql.engine import reading

_LOG: Final = logging.getLogger("meterhouse.admin")
_NO_PEPPER: Final = os.urandom(32)  # takes as long as a real one


class Origin(msgspec.Struct, frozen=True):
    """Where a request comes from, and what it is called."""

    address: str
    request_id: str

    @classmethod
    def of(cls, request: Request[Any, Any, Any]) -> "Origin":
        origin = cls(request.client.host if request.client else "", ids.new("req"))
        request.state.request_id = origin.request_id
        return origin


class Door:
    """One for each process; what failed is remembered in its own memory."""

    def __init__(self, deps: AdminDeps) -> None:
        self._deps = deps
        self._secret = os.urandom(32)
        self._bootstrap = self._mark(deps.admin_token)
        self._failures = Failures()
        # One attempt at a time from an address that is not known, or many could fail before the
        # first is counted. A lock is gone with the last attempt that waits for it.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def enter(self, request: Request[Any, Any, Any], origin: Origin) -> Principal:
        """ProblemError 401, or 429 where there were too many of those."""
        token = _bearer(request)
        presented = keyring.parse_admin(token.encode())
        mark = self._mark(f"{origin.address} {token}")
        if self._failures.was_let_in(mark):
            return await self._judge(token, presented, origin, mark)
        turn = self._turns.setdefault(origin.address, asyncio.Lock())
        async with turn:
            public_id = None if presented is None else presented.public_id
            wait_us = self._failures.wait_us(origin.address, public_id, clock.monotonic_us())
            if wait_us and not self._failures.was_let_in(mark):
                self._deps.refused("too_many_failures")
                raise _too_many(wait_us)
            return await self._judge(token, presented, origin, mark)

    def refused(self, principal: Principal, origin: Origin, operation: str, code: str) -> None:
        """Somebody who is known asked for what is not his."""
        self._deps.refused(code)
        _LOG.warning(
            "%s of %s (%s) from %s refused: %s, request %s",
            *(operation, principal.id, principal.role.value, origin.address, code),
            origin.request_id,
        )

    async def _judge(
        self, token: str, presented: keyring.Presented | None, origin: Origin, mark: bytes
    ) -> Principal:
        principal = None
        if hmac.compare_digest(self._mark(token), self._bootstrap):
            principal = BOOTSTRAP
        elif presented is not None:
            principal = await asyncio.to_thread(self._known, presented)
        if principal is not None:
            self._failures.let_in(mark)
            return principal
        if not token:
            raise _unknown()  # nothing was claimed, so nothing was guessed
        public_id = None if presented is None else presented.public_id
        self._failures.forget(mark)
        self._failures.failed(origin.address, public_id, clock.monotonic_us())
        self._deps.refused("invalid_admin_token")
        _LOG.warning(
            "admin token %s from %s refused, request %s",
            *(public_id or "(malformed)", origin.address, origin.request_id),
        )
        raise _unknown()

    def _known(self, presented: keyring.Presented) -> Principal | None:
        """The same work for a token that is known and for one that is not."""
        with reading(self._deps.engine) as connection:
            found = admin_tokens.known(connection, presented.public_id)
        version = None if found is None else found.secret.pepper_version
        pepper = self._deps.peppers.by_version.get(version or 0, _NO_PEPPER)
        kept = bytes(32) if found is None else found.secret.digest
        if not keyring.matches(pepper, presented.secret, kept) or found is None:
            return None
        now_us = clock.now_us()
        ends_us = (
            *(found.token.expires_at_us, found.token.revoked_at_us),
            *(found.secret.expires_at_us, found.secret.revoked_at_us),
        )
        if any(end_us is not None and end_us <= now_us for end_us in ends_us):
            return None
        token = found.token
        return Principal(
            id=token.id,
            name=token.name,
            role=Role(token.role),
            tenant_id=token.tenant_id,
            team_id=token.scope_id if token.scope_kind == "team" else None,
        )

    def _mark(self, text: str) -> bytes:
        """Of equal length whatever the text, and of no use to whoever reads the memory."""
        return hmac.digest(self._secret, text.encode(errors="replace"), "sha256")


def _bearer(request: Request[Any, Any, Any]) -> str:
    """The token; empty unless there is exactly one."""
    sent = request.headers.getall("authorization", [])
    scheme, _, token = sent[0].partition(" ") if len(sent) == 1 else ("", "", "")
    return token.strip() if scheme.lower() == "bearer" else ""


def _unknown() -> ProblemError:
    return ProblemError(
        401,
        "invalid_admin_token",
        "send an admin token as `Authorization: Bearer ...`; this one is mistyped, unknown, "
        "expired or revoked",
        headers={"www-authenticate": "Bearer"},
    )


def _too_many(wait_us: int) -> ProblemError:
    seconds = -(-wait_us // 1_000_000)
    return ProblemError(
        429,
        "too_many_failures",
        f"too many tokens from this address were refused; try again in {seconds} s",
        headers={"retry-after": str(seconds)},
    )
