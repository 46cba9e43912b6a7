"""What a worker has read of its configuration it does not read again when that changes."""

import msgspec

from gateway import keyring
from gateway.dataplane.snapshot import Principal, Snapshot
from gateway.stores.sql import rows
from policies.compile import EffectivePolicy
from policies.decision import Deny
from policies.document import canonical, parse

SECRET = keyring.make()
CONFIG = rows.Configuration(
    revision=1,
    tenants=(rows.Tenant(id="t", name="acme", currency="USD", timezone="UTC"),),
    teams=(rows.Team(id="tm", tenant_id="t", name="a"),),
    keys=(rows.Key(id="k", tenant_id="t", team_id="tm", name="app"),),
    secrets=(rows.KeySecret(public_id=SECRET.public_id, key_id="k", digest=b""),),
    models=(rows.Model(id="m", name="chat", targets=()),),
)


def with_policy(version: int, document: bytes) -> rows.Configuration:
    policy = rows.Policy(
        id="p", policy_version=version, name="few", scope_kind="team", scope_id="tm",
        tenant_id="t", state="active", document=document,
    )  # fmt: skip
    return msgspec.structs.replace(CONFIG, policies=(policy,))


def few(attempts: int) -> bytes:
    written = {"name": "few", "scope": {"team": "tm"}, "retries": {"max_attempts": attempts}}
    return canonical(parse(written))


def policy_of(snapshot: Snapshot) -> EffectivePolicy:
    found = snapshot.principal(SECRET.public_id)
    assert found is not None
    principal: Principal = found[0]
    route = snapshot.route(principal, "chat", 1)
    assert not isinstance(route, Deny)
    return route.policy


def test_a_version_of_a_document_is_read_once_and_another_version_anew() -> None:
    first = Snapshot(with_policy(1, few(2)), lambda _: None)
    assert policy_of(first).max_attempts == 2

    same = Snapshot(with_policy(1, b"not looked at"), lambda _: None, first)
    assert policy_of(same) == policy_of(first)

    newer = Snapshot(with_policy(2, few(1)), lambda _: None, same)
    assert policy_of(newer).max_attempts == 1


def test_what_is_no_longer_in_force_is_forgotten() -> None:
    first = Snapshot(with_policy(1, few(2)), lambda _: None)
    policy_of(first)
    without = Snapshot(CONFIG, lambda _: None, first)
    assert policy_of(without).max_attempts == EffectivePolicy().max_attempts

    again = Snapshot(with_policy(1, few(1)), lambda _: None, without)
    assert policy_of(again).max_attempts == 1


def test_a_request_may_come_to_what_the_ledger_has_room_for() -> None:
    tenant = rows.Tenant(id="t", name="acme", currency="VND", timezone="UTC")
    config = msgspec.structs.replace(CONFIG, tenants=(tenant,), most_picos=10**18)
    snapshot = Snapshot(config, lambda _: None)
    found = snapshot.principal(SECRET.public_id)
    assert found is not None

    route = snapshot.route(found[0], "chat", 1)

    assert not isinstance(route, Deny)
    assert route.most == 10**12, "a million dong, counted in millionths"


def test_a_model_without_a_price_for_answers_has_none_for_whoever_wants_one() -> None:
    backend = rows.Backend(
        id="b", name="b", dialect="openai", base_url="http://127.0.0.1:1/v1", region="eu",
        jurisdictions=(), placement="cloud",
    )  # fmt: skip
    target = rows.Target(backend_id="b", upstream_model="up")
    price = rows.Price(
        id="p", book="charge", model="chat", meter="input", amount_per_million="1",
        currency="USD", effective_from_us=0,
    )  # fmt: skip
    config = msgspec.structs.replace(
        CONFIG,
        backends=(backend,),
        models=(rows.Model(id="m", name="chat", targets=(target,)),),
        prices=(price,),
    )
    snapshot = Snapshot(config, lambda _: None)
    found = snapshot.principal(SECRET.public_id)
    assert found is not None

    route = snapshot.route(found[0], "chat", 1)

    assert not isinstance(route, Deny)
    (candidate,) = route.panel.candidates
    assert (candidate.charge_input_picos, candidate.charge_output_picos) == (1_000_000, None)
