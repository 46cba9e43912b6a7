import hashlib

import msgspec
import pytest

from billing.meters import METERS, Meter
from billing.prices import (
    PriceBook,
    Rate,
    amount_per_million,
    can_price,
    output_picos,
    picos_per_token,
    rate_of,
    sealed_card,
    worst_input_picos,
)
from tests.unit.billing.samples import HOUR_US, card, cost_price, list_price


def test_a_price_of_six_decimals_is_a_whole_number_of_picos() -> None:
    assert picos_per_token("3.00") == 3_000_000
    assert picos_per_token("0.000001") == 1
    assert picos_per_token("0") == 0
    assert picos_per_token("9007199254.740991") == 2**53 - 1
    assert amount_per_million(picos_per_token("0.0350")) == "0.035"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("0.0000001", "7 decimals; at most 6"),
        ("-1", "is negative"),
        ("9007199254.740992", "beyond what can be counted"),
        ("3 USD", "not a decimal amount"),
    ],
)
def test_a_price_that_cannot_be_exact_is_refused(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        picos_per_token(text)


def test_a_price_holds_from_its_first_microsecond_until_the_next_begins() -> None:
    old = list_price(id="price_old", effective_from_us=HOUR_US)
    new = list_price(id="price_new", effective_from_us=2 * HOUR_US)
    book = PriceBook([new, old])

    assert book.charge_card("t1", "chat-default", HOUR_US - 1) is None
    for at_us, version in [
        (HOUR_US, "price_old"),
        (2 * HOUR_US - 1, "price_old"),
        (2 * HOUR_US, "price_new"),
        (99 * HOUR_US, "price_new"),
    ]:
        found = book.charge_card("t1", "chat-default", at_us)
        assert found is not None
        assert found.rates[0].version == version


def test_of_two_versions_that_begin_together_the_later_id_holds() -> None:
    book = PriceBook([list_price(id="price_02"), list_price(id="price_01")])

    found = book.charge_card("t1", "chat-default", 1)

    assert found is not None
    assert [rate.version for rate in found.rates] == ["price_02"]


def test_a_contract_price_overrides_the_list_for_its_meter_alone() -> None:
    book = PriceBook(
        [
            list_price(id="list_in"),
            list_price(id="list_out", meter=Meter.OUTPUT),
            list_price(id="deal_in", tenant_id="t1", effective_from_us=HOUR_US),
            list_price(id="list_in_later", effective_from_us=2 * HOUR_US),
        ]
    )

    def versions(tenant_id: str, at_us: int) -> list[str]:
        found = book.charge_card(tenant_id, "chat-default", at_us)
        return [] if found is None else [rate.version for rate in found.rates]

    assert versions("t1", 0) == ["list_in", "list_out"]
    assert versions("t1", HOUR_US) == ["deal_in", "list_out"]
    assert versions("t1", 2 * HOUR_US) == ["deal_in", "list_out"]
    assert versions("t2", 2 * HOUR_US) == ["list_in_later", "list_out"]


def test_tenants_without_a_contract_share_the_list_card() -> None:
    book = PriceBook([list_price()])

    first = book.charge_card("t1", "chat-default", 5)

    assert first is book.charge_card("t2", "chat-default", 7)


def test_cost_is_found_by_backend_and_upstream_model() -> None:
    book = PriceBook([cost_price(id="price_cost"), list_price()])

    found = book.cost_card("be_1", "up", 1)

    assert found is not None
    assert found.rates == (Rate(Meter.INPUT, 3_000_000, "price_cost"),)
    assert book.cost_card("be_2", "up", 1) is None
    assert book.cost_card("be_1", "chat-default", 1) is None


def test_what_a_backend_costs_whatever_it_serves_stands_where_its_model_has_no_price() -> None:
    book = PriceBook(
        [
            cost_price(id="price_1", upstream_model=None, effective_from_us=5),
            cost_price(id="price_2", upstream_model=None, meter=Meter.OUTPUT, effective_from_us=5),
            cost_price(id="price_3", meter=Meter.OUTPUT),
        ]
    )

    def versions(model: str, at_us: int) -> list[str]:
        found = book.cost_card("be_1", model, at_us)
        return [] if found is None else [rate.version for rate in found.rates]

    assert versions("up", 5) == ["price_1", "price_3"]
    assert versions("other", 5) == ["price_1", "price_2"]
    assert versions("up", 4) == versions("other", 4) == []


def test_a_subject_without_an_input_price_has_no_card() -> None:
    book = PriceBook([list_price(meter=Meter.OUTPUT)])

    assert book.charge_card("t1", "chat-default", 1) is None


def test_a_name_that_nobody_priced_is_not_kept() -> None:
    book = PriceBook([list_price()])

    assert book.charge_card("t1", "made-up", 1) is None
    assert not book._timelines


def test_prices_in_another_currency_are_not_there() -> None:
    book = PriceBook(
        [
            list_price(id="in_usd"),
            list_price(id="in_eur", currency="EUR"),
            list_price(id="out_usd", meter=Meter.OUTPUT),
        ]
    )

    euros = book.charge_card("t1", "chat-default", 1, "EUR")
    dollars = book.charge_card("t1", "chat-default", 1, "USD")

    assert euros is not None
    assert dollars is not None
    assert [rate.version for rate in euros.rates] == ["in_eur"]
    assert [rate.version for rate in dollars.rates] == ["in_usd", "out_usd"]
    assert book.charge_card("t1", "chat-default", 1, "JPY") is None


def test_without_a_currency_asked_for_the_input_price_decides() -> None:
    book = PriceBook(
        [list_price(id="in", currency="EUR"), list_price(id="out", meter=Meter.OUTPUT)]
    )

    found = book.charge_card("t1", "chat-default", 1)

    assert found is not None
    assert (found.currency, [rate.version for rate in found.rates]) == ("EUR", ["in"])


def test_the_next_change_is_the_first_start_after_the_instant() -> None:
    book = PriceBook([list_price(effective_from_us=10), cost_price(effective_from_us=20)])

    assert book.next_change_us(0) == 10
    assert book.next_change_us(10) == 20
    assert book.next_change_us(20) is None


def test_a_card_is_called_after_its_content() -> None:
    rates = [Rate(Meter.OUTPUT, 5, "o"), Rate(Meter.INPUT, 1, "i")]

    first = sealed_card("USD", rates)

    assert first == sealed_card("USD", reversed(rates))
    assert [rate.meter for rate in first.rates] == [Meter.INPUT, Meter.OUTPUT]
    assert first.id.startswith("rc_")
    assert first.id != sealed_card("EUR", rates).id
    assert first.id != sealed_card("USD", [Rate(Meter.INPUT, 1, "i")]).id


def test_a_cache_meter_without_a_price_costs_what_input_costs() -> None:
    sample = card(input="3", cache_read="0.3", output="15")

    assert rate_of(sample, Meter.CACHE_READ) == Rate(Meter.CACHE_READ, 300_000, "v_cache_read")
    assert rate_of(sample, Meter.CACHE_WRITE_1H) == Rate(Meter.CACHE_WRITE_1H, 3_000_000, "v_input")
    for meter in METERS:
        assert rate_of(sample, meter) is not None


def test_output_has_no_price_to_fall_back_on() -> None:
    embeddings = card(input="0.02")

    assert rate_of(embeddings, Meter.OUTPUT) is None
    assert output_picos(embeddings) == 0
    assert can_price(embeddings, with_output=False)
    assert not can_price(embeddings, with_output=True)
    assert can_price(card(input="3", output="15"), with_output=True)


def test_a_card_that_lost_its_input_price_prices_nothing() -> None:
    broken = sealed_card("USD", [Rate(Meter.CACHE_READ, 1, "c")])

    assert rate_of(broken, Meter.CACHE_WRITE_5M) is None
    assert not can_price(broken, with_output=False)


def test_the_worst_input_price_looks_at_every_way_to_read_a_prompt() -> None:
    assert worst_input_picos(card(input="3", cache_write_1h="6", output="15")) == 6_000_000
    assert worst_input_picos(card(input="3", cache_read="0.3", output="15")) == 3_000_000


def test_a_contract_s_price_knows_what_the_list_asks_for_at_the_same_instant() -> None:
    book = PriceBook(
        [
            list_price(id="list_1"),
            list_price(id="list_2", picos_per_token=2_000_000, effective_from_us=2 * HOUR_US),
            list_price(id="agreed", tenant_id="t1", picos_per_token=2_400_000),
        ]
    )

    def rates(tenant: str, at_us: int) -> tuple[Rate, ...]:
        found = book.charge_card(tenant, "chat-default", at_us)
        assert found is not None
        return found.rates

    assert rates("t1", HOUR_US) == (Rate(Meter.INPUT, 2_400_000, "agreed", None, 3_000_000),)
    assert rates("t1", 2 * HOUR_US) == (Rate(Meter.INPUT, 2_400_000, "agreed", None, 2_000_000),)
    assert rates("t2", HOUR_US) == (Rate(Meter.INPUT, 3_000_000, "list_1"),)


def test_what_the_list_does_not_price_it_asks_the_price_of_input_for() -> None:
    agreed = {"tenant_id": "t1", "picos_per_token": 1_000_000}
    book = PriceBook(
        [
            list_price(id="list_in"),
            list_price(id="agreed_read", meter=Meter.CACHE_READ, **agreed),
            list_price(id="agreed_out", meter=Meter.OUTPUT, **agreed),
            list_price(id="agreed_in", tenant_id="t1"),
        ]
    )
    found = book.charge_card("t1", "chat-default", HOUR_US)

    assert found is not None
    assert {rate.meter: rate.list_picos for rate in found.rates} == {
        Meter.INPUT: None, Meter.CACHE_READ: 3_000_000, Meter.OUTPUT: None,
    }  # fmt: skip


def test_a_card_keeps_its_name_whatever_its_rates_could_say_besides() -> None:
    plain = sealed_card("USD", [Rate(Meter.INPUT, 1, "i")])
    content = msgspec.msgpack.encode(("USD", [("input", 1, "i")]))

    assert plain.id == f"rc_{hashlib.blake2b(content, digest_size=16).hexdigest()}"
    assert sealed_card("USD", [Rate(Meter.INPUT, 1, "i", None, 2)]).id != plain.id
