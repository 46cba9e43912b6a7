"""What the admin plane is made of: everything its operations need, built once in wiring."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from gateway.keyring import Peppers
from gateway.signing import Signer
from gateway.stores.redis.accounts import AccountReader
from gateway.stores.redis.channel import Channels
from gateway.stores.redis.keys import ONE_TAG
from gateway.stores.sql.seal import Sealer


@dataclass(frozen=True)
class AdminDeps:
    """`publish(revision)` tells the workers of a change. It must not raise: workers that miss the
    message find the revision by polling. `refused(code)` counts who was not let in or not allowed.
    """

    engine: Engine
    admin_token: str
    peppers: Peppers
    sealer: Sealer
    publish: Callable[[int], Awaitable[None]]
    account: AccountReader
    signer: Signer | None = None  # of what is handed out as evidence
    jurisdictions: frozenset[str] = frozenset()  # every law that reaches this gateway
    store: Channels | None = None  # for what status shows
    tags: tuple[str, ...] = ONE_TAG  # of which a new tenant gets one, for good
    # gateway.admin.policies.Explain -> policies.explain's plain data. It raises ProblemError for an
    # unknown key or model. The data plane's snapshot is behind it, which this plane may not import.
    explain: Callable[[Any], Awaitable[dict[str, Any]]] | None = None
    refused: Callable[[str], None] = lambda _code: None
    tenants_see_cost: bool = False  # what backends cost the operator, and the margin on it

    def __repr__(self) -> str:
        return "AdminDeps(***)"
