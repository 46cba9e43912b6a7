import msgspec

from billing.usage import DECODER, ENCODER, UsageEvent
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
