"""Prices over their life: drafted, approved by one door only, in force for good."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from gateway.stores.sql import configuration
from tests.admin_server import AdminServer, Made, refused

BODY = {
    "book": "charge",
    "meter": "input",
    "amount_per_million": "0.10",
    "currency": "EUR",
    "effective_from": "2026-01-01T00:00:00Z",
}


@pytest.fixture
def body(made: Made) -> dict[str, Any]:
    """Of a model of its own: the tests share one server."""
    return BODY | {"model": f"m-{made.name()}"}


def test_a_put_never_approves(admin_client: httpx.Client, made: Made, body: dict[str, Any]) -> None:
    draft = made.make("prices", **body, state="draft")
    path = f"/prices/{draft['id']}"

    corrected = admin_client.put(path, json=body | {"amount_per_million": "0.20"})
    asked = admin_client.put(path, json=body | {"state": "approved"})

    assert (corrected.status_code, corrected.json()["state"]) == (200, "draft")
    refused(asked, 422, "state")
    assert f"{path}/approve" in asked.json()["errors"][0]["remedy"]
    found = admin_client.get(path).json()
    assert (found["state"], found["amount_per_million"]) == ("draft", "0.20")
    assert admin_client.post(f"{path}/approve").json()["state"] == "approved"


def test_what_an_approved_price_shows_can_be_put_back_with_or_without_its_state(
    admin_client: httpx.Client, made: Made, body: dict[str, Any]
) -> None:
    price = made.make("prices", **body)
    path = f"/prices/{price['id']}"

    same = admin_client.put(path, json=price)
    silent = admin_client.put(path, json=body)

    assert price["state"] == "approved"
    assert same.json() == silent.json() == price
    refused(admin_client.put(path, json=price | {"state": "draft"}), 409)


def test_a_price_that_has_been_in_force_stays(
    admin_client: httpx.Client, made: Made, body: dict[str, Any]
) -> None:
    soon = (datetime.now(UTC) + timedelta(days=3)).strftime("%Y-%m-%dT00:00:00Z")
    begun = made.make("prices", **body)
    coming = made.make("prices", **body | {"effective_from": soon})
    draft = made.make("prices", **body | {"amount_per_million": "7"}, state="draft")

    answer = admin_client.delete(f"/prices/{begun['id']}")

    refused(answer, 409)
    assert answer.json()["code"] == "immutable"
    assert admin_client.get(f"/prices/{begun['id']}").status_code == 200
    assert admin_client.delete(f"/prices/{coming['id']}").status_code == 204
    assert admin_client.delete(f"/prices/{draft['id']}").status_code == 204


def listed(admin_client: httpx.Client, model: str) -> dict[str, Any]:
    page = admin_client.get("/prices", params={"model": model}).json()
    return {each["id"]: each for each in page["items"]}


def test_importing_twice_leaves_one_draft_a_meter(admin_client: httpx.Client, made: Made) -> None:
    model = f"m-{made.name()}"
    asked = {"provider": "anthropic", "model": "claude-opus-5-5", "as_model": model}

    first = admin_client.post("/prices/import", json=asked).json()["items"]
    again = admin_client.post("/prices/import", json=asked)

    assert again.status_code == 201
    assert again.json()["items"] == first
    assert listed(admin_client, model) == {each["id"]: each for each in first}
    assert len(first) == 5


def test_an_import_mends_the_draft_of_an_older_one_and_leaves_hand_made_and_approved_ones(
    admin_client: httpx.Client, made: Made
) -> None:
    model = f"m-{made.name()}"
    asked = {"provider": "anthropic", "model": "claude-opus-5-5", "as_model": model}
    own = {"model": model, "amount_per_million": "99", "currency": "USD", "state": "draft"}
    by_hand = made.make("prices", **BODY | own)
    items = admin_client.post("/prices/import", json=asked).json()["items"]
    drafts = {each["meter"]: each for each in items}
    changed = drafts["output"] | {"amount_per_million": "1"}
    admin_client.put(f"/prices/{changed['id']}", json=changed)
    approved = admin_client.post(f"/prices/{drafts['cache_read']['id']}/approve").json()

    admin_client.post("/prices/import", json=asked)

    now = listed(admin_client, model)
    assert now[by_hand["id"]] == by_hand
    assert now[approved["id"]] == approved
    assert now[changed["id"]]["amount_per_million"] == drafts["output"]["amount_per_million"]
    assert len(now) == 1 + 5 + 1  # the approved meter was drafted anew


def test_another_date_that_is_asked_for_is_another_draft(
    admin_client: httpx.Client, made: Made
) -> None:
    model = f"m-{made.name()}"
    asked = {"provider": "anthropic", "model": "claude-opus-5-5", "as_model": model}
    dated = asked | {"effective_from": "2027-01-01T00:00:00Z"}

    for each in (asked, dated, dated):
        admin_client.post("/prices/import", json=each)

    assert len(listed(admin_client, model)) == 10


def test_a_price_that_leaps_is_put_in_force_by_nobody_in_one_step(
    admin_client: httpx.Client, made: Made, body: dict[str, Any]
) -> None:
    """0.10 a million, written as a price of one token by mistake."""
    made.make("prices", **body)
    wrong = body | {"amount_per_million": "100", "effective_from": "2026-02-01T00:00:00Z"}

    answer = admin_client.post("/prices", json=wrong)

    refused(answer, 422, "amount_per_million")
    assert "the 0.10 before it" in answer.json()["detail"]
    draft = made.make("prices", **wrong, state="draft")
    approved = admin_client.post(f"/prices/{draft['id']}/approve")
    assert approved.json()["state"] == "approved"
    other = body | {"meter": "output", "amount_per_million": "100"}
    assert admin_client.post("/prices", json=other).status_code == 201
    earlier = body | {"amount_per_million": "9", "effective_from": "2025-01-01T00:00:00Z"}
    assert admin_client.post("/prices", json=earlier).status_code == 201


def test_an_import_says_which_drafts_leap(admin_client: httpx.Client, made: Made) -> None:
    model = f"m-{made.name()}"
    asked = {"provider": "anthropic", "model": "claude-opus-5-5", "as_model": model}
    cheap = {"amount_per_million": "0.004", "currency": "USD", "model": model}
    made.make("prices", **BODY | cheap)

    imported = admin_client.post("/prices/import", json=asked).json()

    assert [note for note in imported["notes"] if "look twice" in note and "input" in note]


def test_tiers_rise_and_each_is_looked_at_before_it_is_in_force(
    admin_client: httpx.Client, made: Made, body: dict[str, Any]
) -> None:
    def tiers(*amounts: tuple[int, str]) -> dict[str, Any]:
        given = [{"above_tokens": size, "amount_per_million": text} for size, text in amounts]
        return body | {"effective_from": "2026-02-01T00:00:00Z", "context_tiers": given}

    made.make("prices", **body)

    refused(admin_client.post("/prices", json=tiers((9, "0.2"), (9, "0.3"))), 422, "context_tiers")
    leaping = admin_client.post("/prices", json=tiers((200_000, "0.31")))
    refused(leaping, 422, "amount_per_million")
    assert "above 200000 tokens of prompt" in leaping.json()["errors"][0]["message"]
    price = made.make("prices", **tiers((200_000, "0.2"), (400_000, "0.3")))
    assert price["context_tiers"] == tiers((200_000, "0.2"), (400_000, "0.3"))["context_tiers"]
    assert admin_client.put(f"/prices/{price['id']}", json=price).json() == price


def test_tiers_by_quantity_belong_to_charges_and_exclude_those_by_prompt(
    admin_client: httpx.Client, made: Made, body: dict[str, Any]
) -> None:
    tier = {"above_tokens": 10_000_000, "amount_per_million": "0.08"}
    by_month = {"quantity_tiers": {"mode": "graduated", "tiers": [tier]}}
    rising_twice = {"quantity_tiers": {"mode": "volume", "tiers": [tier, tier]}}

    both = admin_client.post("/prices", json=body | by_month | {"context_tiers": [tier]})
    refused(both, 422, "quantity_tiers")
    refused(admin_client.post("/prices", json=body | rising_twice), 422, "quantity_tiers.tiers")
    price = made.make("prices", **body, **by_month)
    assert price["quantity_tiers"] == by_month["quantity_tiers"]
    assert admin_client.put(f"/prices/{price['id']}", json=price).json() == price
    assert admin_client.put(f"/prices/{price['id']}", json=body).json()["code"] == "immutable"


def test_an_odd_price_is_approved_by_somebody_else_than_who_drafted_it(
    admin_house: AdminServer, admin_client: httpx.Client, made: Made, body: dict[str, Any]
) -> None:
    """A price of one token, written as one of a million."""
    people = [
        admin_house.client(made.make("admin-tokens", name=name, role="platform_admin")["secret"])
        for name in ("ada", "grace")
    ]
    with people[0] as ada, people[1] as grace:
        mistaken = body | {"amount_per_million": "0.000003"}
        at_once = ada.post("/prices", json=mistaken)
        refused(at_once, 422, "amount_per_million")
        draft = ada.post("/prices", json=mistaken | {"state": "draft"}).json()

        own = ada.post(f"/prices/{draft['id']}/approve")
        refused(own, 409)
        assert own.json()["code"] == "four_eyes"
        assert grace.post(f"/prices/{draft['id']}/approve").json()["state"] == "approved"

        dear = {"amount_per_million": "2000", "meter": "output", "state": "draft"}
        plain = ada.post("/prices", json=body | dear).json()
        path = f"/prices/{plain['id']}"
        mended = grace.put(path, json=body | dear | {"amount_per_million": "3000"})
        assert mended.status_code == 200
        assert grace.post(f"{path}/approve").json()["code"] == "four_eyes"
        assert ada.post(f"{path}/approve").json()["state"] == "approved"
        usual = ada.post("/prices", json=body | {"meter": "cache_read", "state": "draft"}).json()
        assert ada.post(f"/prices/{usual['id']}/approve").json()["state"] == "approved"


def test_more_than_half_is_given_away_by_two(
    admin_house: AdminServer, admin_client: httpx.Client, made: Made
) -> None:
    role = {"role": "platform_admin"}
    first, second = (made.make("admin-tokens", name=made.name(), **role) for _ in range(2))
    whole = {"tenant_id": made.tenant()["id"], "percent": "100"}
    with admin_house.client(first["secret"]) as one, admin_house.client(second["secret"]) as two:
        refused(one.post("/discounts", json=whole), 422, "percent")
        half = one.post("/discounts", json=whole | {"percent": "50"})
        assert (half.status_code, half.json()["state"]) == (201, "approved")
        coming = whole | {"percent": "5", "effective_from": "2999-01-01T00:00:00Z"}
        later = one.post("/discounts", json=coming).json()
        mended = one.put(f"/discounts/{later['id']}", json=coming | {"percent": "99"})
        refused(mended, 422, "percent")

        draft = one.post("/discounts", json=whole | {"state": "draft"}).json()
        path = f"/discounts/{draft['id']}"
        in_force = configuration.load(admin_house.engine).discounts
        assert draft["id"] not in {each.id for each in in_force}
        refused(one.put(path, json=whole | {"state": "approved"}), 422, "state")
        assert one.post(f"{path}/approve").json()["code"] == "four_eyes"
        approved = two.post(f"{path}/approve").json()

    assert approved["state"] == "approved"
    assert approved["effective_from"] > draft["effective_from"]
    in_force = configuration.load(admin_house.engine).discounts
    assert draft["id"] in {each.id for each in in_force}


def test_a_token_that_the_drafter_could_use_is_no_second_person(
    admin_house: AdminServer, made: Made, body: dict[str, Any]
) -> None:
    """Whoever makes a token or gives it a new secret has seen the secret."""
    role = {"role": "platform_admin"}
    alice, bob = (made.make("admin-tokens", name=name, **role) for name in ("alice", "bob"))

    def does(token: Any, path: str, **given: Any) -> Any:
        with admin_house.client(token["secret"]) as client:
            return client.post(path, json=given)

    def code(token: Any, draft: Any) -> Any:
        return does(token, f"/prices/{draft['id']}/approve").json().get("code")

    odd = body | {"amount_per_million": "0.000003", "state": "draft"}
    sock = does(alice, "/admin-tokens", name="sock", **role).json()
    toe = does(sock, "/admin-tokens", name="toe", **role).json()
    draft, other = does(alice, "/prices", **odd).json(), does(toe, "/prices", **odd).json()

    assert [code(each, draft) for each in (sock, toe)] == ["four_eyes"] * 2
    assert code(alice, other) == "four_eyes"
    made.client.delete(f"/admin-tokens/{sock['id']}")
    assert [code(toe, draft), code(alice, other)] == ["four_eyes"] * 2
    stolen = does(alice, f"/admin-tokens/{bob['id']}/rotate").json()
    assert code(stolen, draft) == "four_eyes"
    path = f"/admin-tokens/{bob['id']}/rotate"
    given = made.client.post(path, json={"overlap_seconds": 0}).json()
    made.client.delete(f"/admin-tokens/{toe['id']}")
    assert code(alice, other) == "four_eyes", "nobody knows whose it was"
    assert code(given, draft) is None


def test_a_contract_is_held_against_the_list_before_it_has_prices_of_its_own(
    admin_client: httpx.Client, made: Made, body: dict[str, Any]
) -> None:
    made.make("prices", **body | {"amount_per_million": "15"})
    contract = body | {"tenant_id": made.tenant()["id"]}

    for begins in ("2026-02-01T00:00:00Z", "2020-01-01T00:00:00Z"):
        dear = contract | {"amount_per_million": "900", "effective_from": begins}
        answer = admin_client.post("/prices", json=dear)
        refused(answer, 422, "amount_per_million")
        assert "the list's 15" in answer.json()["detail"]

    made.make("prices", **contract | {"amount_per_million": "12"})


def test_a_draft_is_held_against_what_it_follows_when_it_is_approved(
    admin_house: AdminServer, admin_client: httpx.Client, made: Made, body: dict[str, Any]
) -> None:
    undated = {name: value for name, value in body.items() if name != "effective_from"}
    made.make("prices", **body | {"amount_per_million": "1"})
    token = made.make("admin-tokens", name="frances", role="platform_admin")["secret"]
    with admin_house.client(token) as frances:
        draft = frances.post(
            "/prices", json=undated | {"amount_per_million": "2.9", "state": "draft"}
        ).json()
        made.make("prices", **undated | {"amount_per_million": "0.34"})

        own = frances.post(f"/prices/{draft['id']}/approve")

    refused(own, 409)
    assert own.json()["code"] == "four_eyes"


def test_a_discount_that_has_begun_stays_until_a_later_one_takes_its_place(
    admin_client: httpx.Client, made: Made
) -> None:
    tenant = made.tenant()
    fields = {
        "tenant_id": tenant["id"],
        "percent": "12.5",
        "effective_from": "2026-01-01T00:00:00Z",
    }
    begun = made.make("discounts", **fields)
    path = f"/discounts/{begun['id']}"

    assert admin_client.put(path, json=begun).json() == begun
    refused(admin_client.put(path, json=fields | {"percent": "13"}), 409)
    refused(admin_client.delete(path), 409)
    refused(admin_client.post("/discounts", json=fields), 409)
    refused(admin_client.post("/discounts", json=fields | {"percent": "101"}), 422, "percent")
    missing = fields | {"tenant_id": "tenant_01aaaaaaaaaaaaaaaaaaaaaaaa"}
    refused(admin_client.post("/discounts", json=missing), 422, "tenant_id")
    coming = made.make("discounts", **fields | {"effective_from": "2999-01-01T00:00:00Z"})
    assert admin_client.delete(f"/discounts/{coming['id']}").status_code == 204
    refused(admin_client.delete(f"/tenants/{tenant['id']}"), 409)


def test_an_import_says_where_a_second_source_asks_for_another_price(
    admin_client: httpx.Client, made: Made
) -> None:
    page = [
        {"meter": "input", "amount_per_million": "4.00"},
        {"meter": "cache_read", "amount_per_million": "0.4"},
        {"meter": "output", "amount_per_million": "25"},
    ]
    asked = {"provider": "anthropic", "model": "claude-opus-5-5", "as_model": f"m-{made.name()}"}

    answer = admin_client.post(
        "/prices/import", json=asked | {"cross_check": {"name": "the price page", "amounts": page}}
    ).json()

    sources = {each["meter"]: each["source"] for each in answer["items"]}
    assert "the price page" not in sources["input"]
    assert sources["output"].endswith("; the price page asks 25")
    assert sources["cache_write_5m"].endswith("; the price page asks nothing that it told")
    notes = " ".join(answer["notes"])
    assert "output: the price page asks 25, the catalogue 20: find out who is right" in notes
    assert "input: " not in notes


def test_what_is_dated_back_or_takes_nothing_off_says_so(
    admin_client: httpx.Client, made: Made, body: dict[str, Any]
) -> None:
    known, tenant = made.model(made.backend()["id"]), made.tenant()
    given = {"tenant_id": tenant["id"], "percent": "5"}

    dated_back = made.make("prices", **body)
    mistyped = made.make("discounts", **given, model="no-such-model")
    earlier = {"effective_from": "2026-01-01T00:00:00Z"}

    (told,) = dated_back["warnings"]
    assert "rated at the prices in force then, and stays so" in told
    ahead = {"effective_from": "2099-01-01T00:00:00Z"}
    assert made.make("prices", **body | ahead)["warnings"] == []
    assert mistyped["warnings"] == [
        "there is no model 'no-such-model': until there is one, nothing is taken off"
    ]
    assert made.make("discounts", **given, model=known["name"])["warnings"] == []
    assert len(made.make("discounts", **given, model="neither", **earlier)["warnings"]) == 2
    sent_back = admin_client.put(f"/prices/{dated_back['id']}", json=dated_back)
    assert sent_back.json() == dated_back
