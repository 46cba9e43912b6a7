"""Configuration rows: what is written is read back, on SQLite and PostgreSQL alike."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine

from gateway import ids
from gateway.stores.sql import (
    backends,
    budgets,
    configuration,
    discounts,
    keys,
    limits,
    models,
    policies,
    prices,
    rows,
    teams,
    tenants,
)
from gateway.stores.sql.engine import reading
from gateway.stores.sql.exact import most_picos
from gateway.stores.sql.records import TakenError
from gateway.stores.sql.tables import rollups
from tests.schema import with_tables

TENANT = rows.Tenant(
    id="t1",
    name="Zürich 東京",
    currency="EUR",
    timezone="Europe/Zurich",
    tag_names=("env", "app"),
)
OUTER = rows.Team(id="team1", tenant_id="t1", name="outer", cost_center="42", weight=7)
INNER = rows.Team(id="team2", tenant_id="t1", name="inner", parent_id="team1")
KEY = rows.Key(
    id="key1", tenant_id="t1", team_id="team2", name="app", models=("chat",), cidrs=("10.0.0.0/8",)
)
SECRET = rows.KeySecret(public_id="p1", key_id="key1", digest=bytes(range(32)), pepper_version=3)
BACKEND = rows.Backend(
    id="b1",
    name="eu",
    dialect="openai",
    base_url="https://eu.example/v1",
    region="eu-1",
    jurisdictions=("DE", "FR"),
    credential_sealed=b"\x00\xff",
    trusted=True,
)
MODEL = rows.Model(
    id="m1",
    name="chat",
    targets=(rows.Target(backend_id="b1", upstream_model="x", weight=3),),
    capabilities=("chat", "tools"),
    context_window=8192,
)
BUDGET = rows.Budget(
    id="bud1",
    tenant_id="t1",
    scope_kind="team",
    scope_id="team1",
    amount="123456.789012345",
    period="month",
    thresholds=(50, 100),
)
LIMIT = rows.Limit(
    id="lim1", tenant_id="t1", scope_kind="key", scope_id="key1", tokens_per_day=2**40
)
DISCOUNT = rows.Discount(
    id="disc1", tenant_id="t1", percent="12.5", model="chat", meter="input", effective_from_us=7
)
PRICE = rows.Price(
    id="price1",
    book="charge",
    model="chat",
    tenant_id="t1",
    meter="input",
    amount_per_million="0.000001",
    context_tiers=(rows.TierPrice(above_tokens=200_000, amount_per_million="2.50"),),
    quantity_tiers=rows.QuantityTiers(
        mode="volume", tiers=(rows.TierPrice(above_tokens=1, amount_per_million="2"),)
    ),
    currency="EUR",
    effective_from_us=1_700_000_000_000_000,
)
POLICY = rows.Policy(
    id="pol1",
    policy_version=1,
    name="eu",
    scope_kind="team",
    scope_id="team1",
    tenant_id="t1",
    state="draft",
    document=b'{"name":"eu"}',
)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = with_tables(database_url)
    yield engine
    engine.dispose()


def _fill(engine: Engine) -> None:
    with configuration.changing(engine) as (connection, _):
        tenants.RECORDS.add(connection, TENANT)
        for team in (OUTER, INNER):
            teams.RECORDS.add(connection, team)
        keys.RECORDS.add(connection, KEY)
        keys.SECRETS.add(connection, SECRET)
        backends.RECORDS.add(connection, BACKEND)
        models.RECORDS.add(connection, MODEL)
        budgets.RECORDS.add(connection, BUDGET)
        limits.RECORDS.add(connection, LIMIT)
        discounts.RECORDS.add(connection, DISCOUNT)
        prices.RECORDS.add(connection, PRICE)
        policies.add(connection, POLICY)


def test_an_empty_database_is_an_empty_configuration(engine: Engine) -> None:
    room = most_picos(engine.dialect.name)
    assert configuration.load(engine) == rows.Configuration(revision=1, most_picos=room)


def test_every_noun_comes_back_as_it_was_written(engine: Engine) -> None:
    _fill(engine)

    found = configuration.load(engine)

    assert found == rows.Configuration(
        revision=2,
        most_picos=most_picos(engine.dialect.name),
        tenants=(TENANT,),
        teams=(OUTER, INNER),
        keys=(KEY,),
        secrets=(SECRET,),
        backends=(BACKEND,),
        models=(MODEL,),
        budgets=(BUDGET,),
        limits=(LIMIT,),
        discounts=(DISCOUNT,),
        prices=(PRICE,),
    )


def test_only_active_policies_approved_prices_and_live_secrets_reach_the_workers(
    engine: Engine,
) -> None:
    _fill(engine)
    drafted = msgspec.structs.replace(POLICY, policy_version=2, version=2, document=b"{}")
    with configuration.changing(engine) as (connection, _):
        policies.set_state(connection, POLICY, "active", 5)
        policies.add_version(connection, drafted, 6)
        keys.TURNOVER.revoke(connection, "key1", 7)
        draft = msgspec.structs.replace(PRICE, id="price2", state="draft")
        prices.RECORDS.add(connection, draft)

    found = configuration.load(engine)

    assert [(policy.policy_version, policy.document) for policy in found.policies] == [
        (1, POLICY.document)
    ]
    assert found.prices == (PRICE,)
    assert found.secrets == ()


def test_a_version_that_becomes_active_retires_the_one_before_it(engine: Engine) -> None:
    _fill(engine)
    second = msgspec.structs.replace(POLICY, policy_version=2)
    with configuration.changing(engine) as (connection, _):
        policies.set_state(connection, POLICY, "active", 5)
        policies.add_version(connection, second, 6)
        policies.set_state(connection, second, "active", 7)

    with reading(engine) as connection:
        states = {each.policy_version: each.state for each in policies.versions(connection, "pol1")}

    assert states == {1: "retired", 2: "active"}


@pytest.mark.parametrize(
    ("records", "row"),
    [
        (tenants.RECORDS, msgspec.structs.replace(TENANT, id="t2")),
        (teams.RECORDS, msgspec.structs.replace(OUTER, id="team9")),
        (keys.RECORDS, msgspec.structs.replace(KEY, id="key9")),
        (backends.RECORDS, msgspec.structs.replace(BACKEND, id="b9")),
        (models.RECORDS, msgspec.structs.replace(MODEL, id="m9")),
        (budgets.RECORDS, msgspec.structs.replace(BUDGET, id="bud9")),
        (limits.RECORDS, msgspec.structs.replace(LIMIT, id="lim9")),
    ],
)
def test_what_must_be_unique_is_refused_the_second_time(
    engine: Engine, records: Any, row: Any
) -> None:
    _fill(engine)

    with pytest.raises(TakenError), configuration.changing(engine) as (connection, _):
        records.add(connection, row)


def test_pages_follow_one_another_without_gap_or_repetition(engine: Engine) -> None:
    made = sorted(ids.new("tenant") for _ in range(7))
    with configuration.changing(engine) as (connection, _):
        for position, identifier in enumerate(made):
            row = msgspec.structs.replace(TENANT, id=identifier, name=f"n{position}")
            tenants.RECORDS.add(connection, row)

    seen: list[str] = []
    with reading(engine) as connection:
        while page := tenants.RECORDS.page(connection, {}, seen[-1] if seen else None, 3):
            seen += [row.id for row in page]

    assert seen == made


def test_what_is_in_use_says_by_what(engine: Engine) -> None:
    _fill(engine)

    with reading(engine) as connection:
        assert tenants.in_use(connection, "t1") == "teams"
        assert teams.in_use(connection, OUTER) == "teams inside it"
        assert teams.in_use(connection, INNER) == "keys"
        assert keys.in_use(connection, KEY) == "limits"
        assert backends.in_use(connection, "b1") == "model 'chat'"


def test_a_rotation_leaves_at_most_two_secrets_alive(engine: Engine) -> None:
    _fill(engine)
    for number in range(2, 5):
        with configuration.changing(engine) as (connection, _):
            keys.TURNOVER.retire(connection, "key1", number, number + 100)
            fresh = msgspec.structs.replace(SECRET, public_id=f"p{number}")
            keys.SECRETS.add(connection, fresh)

    alive = configuration.load(engine).secrets

    assert [(each.public_id, each.expires_at_us) for each in alive] == [("p3", 104), ("p4", None)]


def test_the_height_and_the_ancestors_of_a_team(engine: Engine) -> None:
    _fill(engine)

    with reading(engine) as connection:
        assert teams.ancestors(connection, INNER) == (OUTER,)
        assert teams.height(connection, OUTER) == 2
        assert teams.height(connection, INNER) == 1


def test_what_usage_refers_to_stays(engine: Engine) -> None:
    _fill(engine)
    used = {column.name: 0 for column in rollups.columns} | {
        "bucket_us": PRICE.effective_from_us,
        "tenant_id": "t1",
        "team_id": "team2",
        "key_id": "key1",
        "model": "chat",
        "backend_id": "b1",
        "region": "eu-1",
        "provenance": "reported",
        "charge_card": "rc_1",
        "cost_card": "",
        "winner": True,
        "currency": "EUR",
    }
    with configuration.changing(engine) as (connection, _):
        connection.execute(rollups.insert().values(**used))
        limits.RECORDS.remove(connection, id="lim1")

    with reading(engine) as connection:
        assert keys.in_use(connection, KEY) == "usage"
        assert tenants.has_money(connection, "t1") == "budgets"
