from gateway.backends.sse import Splitter, kind, payload


def test_events_leave_as_soon_as_they_are_complete() -> None:
    splitter = Splitter()

    assert splitter.feed(b"data: 1\n") == []
    assert splitter.feed(b"\ndata: 2\n\ndata") == [b"data: 1\n\n", b"data: 2\n\n"]
    assert splitter.feed(b": 3\n\n") == [b"data: 3\n\n"]
    assert splitter.rest() == b""


def test_what_is_left_at_the_end_can_be_had() -> None:
    splitter = Splitter()
    splitter.feed(b"data: 1\n\ndata: cut")

    assert splitter.rest() == b"data: cut"
    assert splitter.rest() == b""


def test_a_carriage_return_at_the_end_of_a_read_waits_for_the_next_byte() -> None:
    splitter = Splitter()

    assert splitter.feed(b"data: 1\r\n\r") == []
    assert splitter.feed(b"\n") == [b"data: 1\r\n\r\n"]


def test_data_lines_are_joined_and_other_fields_are_not_data() -> None:
    event = b": note\nid: 7\nevent: error\ndata:a\ndata:  b\ndata\nretry: 5\n\n"

    assert payload(event) == b"a\n b\n"
    assert kind(event) == b"error"


def test_a_comment_has_neither_data_nor_name() -> None:
    assert payload(b": ping\n\n") is None
    assert kind(b": ping\n\n") is None


def test_a_byte_order_mark_is_not_part_of_the_first_field() -> None:
    assert payload(b"\xef\xbb\xbfdata: 1\n\n") == b"1"
