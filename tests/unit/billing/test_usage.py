import msgspec

from billing.prices import RateCard
from billing.usage import DECODER, ENCODER, Cards, UsageEvent
from tests.unit.billing.samples import event


def test_an_event_survives_its_journey() -> None:
    assert DECODER.decode(ENCODER.encode(event())) == event()


def test_an_event_of_the_release_before_lacks_the_last_fields_and_is_read() -> None:
    fields = msgspec.msgpack.decode(ENCODER.encode(event(decision=b"d", standing=b"s")))

    before = fields[: UsageEvent.__struct_fields__.index("decision")]
    assert DECODER.decode(msgspec.msgpack.encode(before)) == event()


def test_an_event_of_the_next_release_has_more_fields_and_is_read() -> None:
    fields = msgspec.msgpack.decode(ENCODER.encode(event()))

    assert DECODER.decode(msgspec.msgpack.encode([*fields, "new"])) == event()


def test_a_token_count_beyond_the_floats_is_kept() -> None:
    sent = event(counter_nanos=9_007_199_254_740_993)

    assert DECODER.decode(ENCODER.encode(sent)).counter_nanos == 9_007_199_254_740_993


def test_events_of_one_delivery_share_their_cards_and_a_namesake_keeps_its_own() -> None:
    forged = RateCard(event().charge_card.id, "EUR", ())
    sent = [event(), event(cost_card=None), event(charge_card=forged)]
    read = [DECODER.decode(ENCODER.encode(each)) for each in sent]

    cards = Cards()
    for each in read:
        cards.share(each)

    assert read == sent
    assert read[0].charge_card is read[1].charge_card
    assert read[2].charge_card == forged
