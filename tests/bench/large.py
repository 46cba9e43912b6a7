"""A large configuration, written into a database: a hundred tenants of ten teams with a key each,
ten thousand policies on all scopes, a thousand backends, and models on five of them or on all.
"""

from collections.abc import Iterator
from typing import Final

import msgspec
from sqlalchemy import Connection, Engine

from gateway import keyring
from gateway.stores.sql import backends, keys, models, policies, prices, rows, teams, tenants
from gateway.stores.sql.configuration import changing
from policies.document import canonical, parse

TENANTS: Final = 100
TEAMS: Final = 10  # of each
BACKENDS: Final = 1_000
OF_A_MODEL: Final = 5  # backends
WIDE: Final = "wide"  # the model that is on all of them
OF_A_TENANT, OF_A_TEAM, OF_A_KEY = 20, 7, 1  # policies: ten thousand together
PLACES: Final = (("DE",), ("FR",), ("EU",), ("US",), ("CH",))


class Written(msgspec.Struct, frozen=True):
    """`secrets` of the keys, the first of each tenant; `policies` and `backends` are how many."""

    secrets: tuple[str, ...]
    policies: int
    backends: int


def write(engine: Engine, pepper: bytes) -> Written:
    """All of it in one change of the configuration."""
    with changing(engine) as (connection, _):
        for number in range(BACKENDS):
            backends.RECORDS.add(connection, _backend(number))
        for number in range(0, BACKENDS, OF_A_MODEL):
            _model(connection, f"m{number}", range(number, number + OF_A_MODEL))
        _model(connection, WIDE, range(BACKENDS))
        secrets = [_tenant(connection, number, pepper) for number in range(TENANTS)]
        written = 0
        for policy in _policies():
            policies.add(connection, policy)
            written += 1
    return Written(tuple(secrets), written, BACKENDS)


def _backend(number: int) -> rows.Backend:
    return rows.Backend(
        id=f"b{number:04}",
        name=f"backend-{number}",
        dialect="openai",
        base_url=f"http://10.0.{number // 256}.{number % 256}:8000/v1",
        region=f"region-{number % 7}",
        jurisdictions=PLACES[number % len(PLACES)],
        placement=("cloud", "edge", "on_prem")[number % 3],
        max_concurrency=64,
    )


def _model(connection: Connection, name: str, on: range) -> None:
    targets = tuple(rows.Target(backend_id=f"b{number:04}", upstream_model="m") for number in on)
    model = rows.Model(id=name, name=name, targets=targets, context_window=32_768)
    models.RECORDS.add(connection, model)
    for meter, amount in (("input", "3"), ("output", "15")):
        price = rows.Price(
            id=f"{name}-{meter}", book="charge", model=name, meter=meter,
            amount_per_million=amount, currency="USD", effective_from_us=0,
        )  # fmt: skip
        prices.RECORDS.add(connection, price)


def _tenant(connection: Connection, number: int, pepper: bytes) -> str:
    """The secret of its first key."""
    tenant = f"t{number}"
    tenants.RECORDS.add(
        connection, rows.Tenant(id=tenant, name=tenant, currency="USD", timezone="Europe/Berlin")
    )
    made = []
    for at in range(TEAMS):
        team, key = f"{tenant}-team{at}", f"{tenant}-key{at}"
        teams.RECORDS.add(connection, rows.Team(id=team, tenant_id=tenant, name=team))
        keys.RECORDS.add(connection, rows.Key(id=key, tenant_id=tenant, team_id=team, name="app"))
        secret = keyring.make()
        digest = keyring.digest(pepper, secret.secret)
        keys.SECRETS.add(
            connection, rows.KeySecret(public_id=secret.public_id, key_id=key, digest=digest)
        )
        made.append(secret.text)
    return made[0]


def _policies() -> Iterator[rows.Policy]:
    for number in range(TENANTS):
        tenant = f"t{number}"
        yield from _scoped("tenant", tenant, tenant, OF_A_TENANT)
        for at in range(TEAMS):
            yield from _scoped("team", f"{tenant}-team{at}", tenant, OF_A_TEAM)
            yield from _scoped("key", f"{tenant}-key{at}", tenant, OF_A_KEY)


def _scoped(kind: str, scope_id: str, tenant: str, count: int) -> Iterator[rows.Policy]:
    for number in range(count):
        document = parse(_document(number) | {"scope": {kind: scope_id}})
        yield rows.Policy(
            id=f"{scope_id}-p{number}", policy_version=1, name=document.name, scope_kind=kind,
            scope_id=scope_id, tenant_id=tenant, state="active", document=canonical(document),
        )  # fmt: skip


def _document(number: int) -> dict[str, object]:
    """Of each kind some; every third speaks of one model only, every fifth of streams."""
    match: dict[str, object] = {}
    if number % 3 == 2:
        match["models"] = [f"m{number * OF_A_MODEL}"]
    if number % 5 == 4:
        match["stream"] = True
    return ({"match": match} if match else {}) | {
        "name": f"p{number}",
        "require": {"residency": ["EU", "CH"]},
        "slo": {"ttft_p95_ms": 800 + number},
        "cost": {"max_output_per_million": f"{20 + number}"},
        "retries": {"max_attempts": 3, "hedge_after_ms": 300},
    }
