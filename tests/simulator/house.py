"""The configuration of every simulated world, compiled by the product's own snapshot: one tenant,
nested teams, three keys, budgets and limits on every level, three backends.
"""

from typing import Final

from gateway.dataplane.snapshot import Principal, Snapshot
from gateway.stores import recount
from gateway.stores.counted import Counted
from gateway.stores.sql.rows import (
    Backend,
    Budget,
    Configuration,
    Key,
    KeySecret,
    Limit,
    Model,
    Price,
    Target,
    Team,
    Tenant,
)

MODEL: Final = "chat"
SMALL: Final = "chat-small"
KEYS: Final = ("bot", "desk", "lab")
BACKENDS: Final = ("be_a", "be_b", "be_c")
DEAREST_CENTS: Final = 4  # what the dearest request may cost, rounded up

# Shortly before these a world begins: a day, a month, and the days that have 25 and 23 hours.
MIDNIGHTS_US: Final = tuple(
    seconds * 1_000_000
    for seconds in (
        1_795_302_000,  # 2026-11-21T23:00Z, midnight in Berlin
        1_796_079_600,  # 2026-11-30T23:00Z, a month ends
        1_792_879_200,  # 2026-10-24T22:00Z, the day of 25 hours begins
        1_806_188_400,  # 2027-03-27T23:00Z, the day of 23 hours begins
    )
)


def snapshot(budget: int, outage: str) -> Snapshot:
    """`budget`: how many of the dearest requests the tightest budget has room for; `outage`: what
    all of them allow while the store does not answer.
    """
    return Snapshot(configuration(budget, outage), lambda _backend: None)


def accounts(of: Configuration, now_us: int) -> list[Counted]:
    """Every account that is in force then."""
    return recount.accounts(of.tenants[0], of.budgets, of.limits, of.grants, now_us)


def principal(of: Snapshot, key: str) -> Principal:
    found = of.principal(key)
    if found is None:
        raise LookupError(key)
    return found[0]


def configuration(budget: int, outage: str) -> Configuration:
    return Configuration(
        revision=1,
        tenants=(Tenant(id="acme", name="Acme", currency="USD", timezone="Europe/Berlin"),),
        teams=(
            Team(id="eu", tenant_id="acme", name="Europe"),
            Team(id="support", tenant_id="acme", parent_id="eu", name="Support"),
            Team(id="labs", tenant_id="acme", name="Labs"),
        ),
        keys=tuple(
            Key(id=f"key_{name}", tenant_id="acme", team_id=team, name=name)
            for name, team in zip(KEYS, ("support", "eu", "labs"), strict=True)
        ),
        secrets=tuple(KeySecret(public_id=k, key_id=f"key_{k}", digest=b"") for k in KEYS),
        backends=tuple(
            Backend(
                id=id_, name=id_, dialect="openai", base_url="http://127.0.0.1:1/v1", region="eu"
            )
            for id_ in BACKENDS
        ),
        models=tuple(
            Model(
                id=f"model_{name}",
                name=name,
                targets=tuple(Target(backend_id=id_, upstream_model="m") for id_ in BACKENDS),
                context_window=100_000,
            )
            for name in (MODEL, SMALL)
        ),
        budgets=_budgets(budget, outage),
        limits=(
            Limit(id="l_tenant", tenant_id="acme", scope_kind="tenant", scope_id="acme",
                  concurrent_requests=40, tokens_per_minute=2_000_000),
            Limit(id="l_bot", tenant_id="acme", scope_kind="key", scope_id="key_bot",
                  requests_per_minute=600, tokens_per_day=budget * 20_000),
        ),
        prices=_prices(),
    )  # fmt: skip


def _budgets(budget: int, outage: str) -> tuple[Budget, ...]:
    def one(scope: str, id_: str, share: int, period: str, mode: str = "hard") -> Budget:
        cents = budget * share * DEAREST_CENTS
        amount = f"{cents // 100}.{cents % 100:02d}"
        return Budget(
            id=f"b_{id_}", tenant_id="acme", scope_kind=scope, scope_id=id_,
            amount=amount, period=period, mode=mode, outage=outage,
        )  # fmt: skip

    return (
        one("tenant", "acme", 4, "month"),
        one("team", "eu", 2, "day"),
        one("team", "support", 2, "total"),
        one("team", "labs", 1, "day", mode="soft"),
        one("key", "key_bot", 1, "day"),
        one("key", "key_lab", 1, "week"),
    )


def _prices() -> tuple[Price, ...]:
    charges = [
        ("charge", model, None, meter, amount)
        for model, amounts in ((MODEL, ("3", "15.000001")), (SMALL, ("0.5", "2.000003")))
        for meter, amount in zip(("input", "output"), amounts, strict=True)
    ]
    costs = [
        ("cost", None, backend, meter, amount)
        for backend, per_million in zip(BACKENDS, ("2", "2.5", "1.999999"), strict=True)
        for meter, amount in (("input", per_million), ("output", "12.345678"))
    ]
    return tuple(
        Price(
            id=f"price_{number}",
            book=book,
            model=model,
            backend_id=backend,
            upstream_model=None if backend is None else "m",
            meter=meter,
            amount_per_million=amount,
            currency="USD",
            effective_from_us=0,
        )
        for number, (book, model, backend, meter, amount) in enumerate(charges + costs)
    )
