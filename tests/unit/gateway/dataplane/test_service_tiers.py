"""Routes at the prices of a tier: what a request is held and ranked by, and what it is billed."""

from typing import Any

import msgspec
import pytest

from billing.meters import Meters
from billing.rating import rate
from gateway import keyring
from gateway.dataplane.envelope import CHAT, EMBEDDINGS
from gateway.dataplane.service_tiers import asked_for, expected_in, on_tier
from gateway.dataplane.snapshot import Route, Snapshot
from gateway.stores.sql import rows
from policies.decision import Deny

SECRET = keyring.make()
EDGE = 1_000
PLACE = ("b", "up")


def price(tier: str, meter: str, amount: str, **changes: Any) -> rows.Price:
    fields: dict[str, Any] = {
        "id": f"{changes.get('book', 'charge')}_{tier}_{meter}", "book": "charge", "model": "chat",
        "meter": meter, "service_tier": tier, "amount_per_million": amount, "currency": "USD",
        "effective_from_us": 0,
    }  # fmt: skip
    return rows.Price(**(fields | changes))


def cost(tier: str, meter: str, amount: str, upstream: str | None = "up") -> rows.Price:
    subject = {"book": "cost", "model": None, "backend_id": "b", "upstream_model": upstream}
    return price(tier, meter, amount, **subject)


def both(tier: str, amounts: tuple[str, str], of: Any = price) -> list[rows.Price]:
    return [of(tier, meter, each) for meter, each in zip(("input", "output"), amounts, strict=True)]


def trunk(*prices: rows.Price, markup: str = "1") -> Route:
    backend = rows.Backend(
        id="b", name="b", dialect="openai", base_url="http://127.0.0.1:1/v1", region="eu"
    )
    target = rows.Target(backend_id="b", upstream_model="up")
    config = rows.Configuration(
        revision=1,
        tenants=(rows.Tenant(id="t", name="acme", currency="USD", timezone="UTC"),),
        teams=(rows.Team(id="tm", tenant_id="t", name="a"),),
        keys=(rows.Key(id="k", tenant_id="t", team_id="tm", name="app"),),
        secrets=(rows.KeySecret(public_id=SECRET.public_id, key_id="k", digest=b""),),
        backends=(backend,),
        models=(rows.Model(id="m", name="chat", targets=(target,), markup=markup),),
        prices=prices,
    )
    snapshot = Snapshot(config, lambda _: None)
    found = snapshot.principal(SECRET.public_id)
    assert found is not None
    route = snapshot.route(found[0], "chat", 1)
    assert not isinstance(route, Deny)
    return route


def at(route: Route, tier: str, operation: str = CHAT) -> Route:
    found = asked_for(route, {"service_tier": msgspec.Raw(f'"{tier}"'.encode())}, operation)
    assert not isinstance(found, Deny), found.message
    return found


def charged(route: Route) -> tuple[int | None, int | None]:
    (candidate,) = route.panel.candidates
    return candidate.charge_input_picos, candidate.charge_output_picos


def test_a_route_without_other_tiers_is_the_same_for_whoever_asks_for_the_standard_one() -> None:
    route = trunk(*both("standard", ("3", "15")))

    assert all(at(route, tier) is route for tier in ("auto", "default", "standard"))
    refused = asked_for(route, {"service_tier": msgspec.Raw(b'"flex"')}, CHAT)
    assert isinstance(refused, Deny)
    assert "priced in: standard;" in refused.message


def test_a_tier_has_its_own_prices_and_auto_is_as_dear_as_the_dearest() -> None:
    route = trunk(
        *both("standard", ("3", "15")), *both("priority", ("2", "30")), price("batch", "input", "9")
    )

    assert charged(at(route, "priority")) == (2_000_000, 30_000_000)
    assert charged(at(route, "auto")) == (3_000_000, 30_000_000)
    assert charged(route) == (3_000_000, 15_000_000)
    assert at(route, "priority") is at(route, "priority")
    assert isinstance(asked_for(route, {"service_tier": msgspec.Raw(b'"batch"')}, CHAT), Deny)
    assert charged(at(route, "batch", EMBEDDINGS)) == (9_000_000, None)


def test_what_a_large_prompt_may_cost_is_looked_at_in_every_tier_that_auto_may_become() -> None:
    above = (rows.TierPrice(above_tokens=EDGE, amount_per_million="40"),)
    dear = price("priority", "input", "6", context_tiers=above)
    route = at(
        trunk(*both("standard", ("3", "15")), dear, price("priority", "output", "30")), "auto"
    )
    assert route.sizes is not None

    (small,) = route.sizes.panel(route.panel, EDGE, EDGE).candidates
    (large,) = route.sizes.panel(route.panel, EDGE + 1, 1).candidates

    assert (small.charge_input_picos, large.charge_input_picos) == (6_000_000, 40_000_000)
    assert large.charge_output_picos == 30_000_000


@pytest.mark.parametrize(("with_charge", "picos"), [(False, 3_000_000), (True, None)])
def test_a_charge_follows_from_the_cost_of_a_tier_only_where_nobody_set_any(
    with_charge: bool, picos: int | None
) -> None:
    costs = [*both("standard", ("1", "5"), cost), *both("priority", ("2", "10"), cost)]
    route = trunk(*costs, *(both("standard", ("4", "20")) if with_charge else []), markup="1.5")

    found = asked_for(route, {"service_tier": msgspec.Raw(b'"priority"')}, CHAT)

    assert (None if isinstance(found, Deny) else charged(found)[0]) == picos


def test_own_hardware_costs_the_same_in_every_tier() -> None:
    box = [cost("standard", meter, "1", None) for meter in ("input", "output")]
    route = at(trunk(*both("standard", ("3", "15")), *both("flex", ("2", "8")), *box), "flex")

    way = route.ways[PLACE]

    assert way.cost is not None
    assert {each.picos_per_token for each in way.cost.rates} == {1_000_000}


def test_a_dead_workers_request_is_estimated_in_the_tier_asked_for_of_auto_the_dearest() -> None:
    route = trunk(*both("standard", ("3", "15")), *both("priority", ("6", "30")))
    worst = Meters(input=10, output=10)

    told = {}
    for tier in ("auto", "priority"):
        way = at(route, tier).ways[PLACE]
        assert way.expected is not None
        expected = expected_in(way.expected, way, tier, worst)
        told[tier] = expected.service_tier, expected.tier_asked, rate(worst, expected.charge_card)

    assert told == {
        "auto": ("priority", "auto", 360_000_000),
        "priority": ("priority", "priority", 360_000_000),
    }


@pytest.mark.parametrize("told", ["scale", "\n", "fl\u00e9x", "auto"])
def test_a_word_that_names_no_tier_of_ours_decides_nothing(told: str) -> None:
    way = at(trunk(*both("standard", ("3", "15")), *both("flex", ("2", "8"))), "flex").ways[PLACE]
    assert way.expected is not None
    used = msgspec.structs.replace(way.expected, usage=Meters(input=1, output=1))

    billed = on_tier(used, way, "flex", told)

    assert (billed.service_tier, billed.charge_picos) == ("flex", 10_000_000)
    assert billed.tier_served == (told if told in ("scale", "auto") else None)
