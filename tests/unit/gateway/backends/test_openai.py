import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.meters import Meters
from gateway.backends.dialect import Dialect, Reported, Seen, StreamMeter
from gateway.backends.openai import OpenAI
from gateway.backends.texts import TEXT_KEPT_BYTES

DIALECT: Dialect = OpenAI()


def event(chunk: Any, end: str = "\n\n") -> bytes:
    return f"data: {json.dumps(chunk)}{end}".encode()


def delta(content: Any = None, finish: Any = None, **more: Any) -> dict[str, Any]:
    said = more if content is None else {"content": content, **more}
    return {"choices": [{"index": 0, "delta": said, "finish_reason": finish}], "usage": None}


def usage(prompt: Any = 10, output: Any = 4, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": output, **more}


def reported(figures: Any) -> Reported | None:
    body = {"choices": [], "usage": figures}
    found = DIALECT.usage_of_answer(json.dumps(body).encode())
    meter = DIALECT.meter()
    meter.feed(event(body))
    assert meter.reported == found  # one reading, streamed or not
    return found


def fed(*chunks: Any) -> tuple[StreamMeter, list[Seen]]:
    meter = DIALECT.meter()
    seen = [meter.feed(c if isinstance(c, bytes) else event(c)) for c in chunks]
    return meter, seen


# ---- requests ----


def test_each_operation_has_its_path() -> None:
    paths = [DIALECT.path(name) for name in ("chat", "completions", "embeddings")]
    assert paths == ["/chat/completions", "/completions", "/embeddings"]
    with pytest.raises(KeyError):
        DIALECT.path("images")


def test_the_credential_goes_into_one_header_and_cannot_start_another() -> None:
    assert (b"authorization", b"Bearer sk-1") in DIALECT.headers("sk-1")
    assert [name for name, _ in DIALECT.headers(None)] == [b"content-type"]
    for bad in ("a\r\nx: y", "ü", "a\0"):
        with pytest.raises(ValueError, match="printable"):
            DIALECT.headers(bad)


# ---- usage ----


def test_cached_tokens_are_taken_out_of_the_prompt_so_that_none_counts_twice() -> None:
    details = {"cached_tokens": 6, "cache_write_tokens": 3}
    found = reported(usage(10, 4, total_tokens=14, prompt_tokens_details=details))

    assert found == Reported(Meters(input=1, cache_read=6, cache_write_5m=3, output=4))
    assert found.meters.all_input == 10


def test_more_cached_tokens_than_prompt_never_make_a_negative_meter() -> None:
    details = {"cached_tokens": 50, "cache_write_tokens": 50}
    found = reported(usage(10, 4, prompt_tokens_details=details))

    assert found == Reported(Meters(cache_read=10, output=4))


def test_reasoning_is_inside_the_output() -> None:
    details = {"reasoning_tokens": 3}
    found = reported(usage(10, 4, total_tokens=14, completion_tokens_details=details))

    assert found == Reported(Meters(input=10, output=4), reasoning=3)


def test_reasoning_that_a_server_counts_apart_is_put_into_the_output() -> None:
    details = {"reasoning_tokens": 30}
    found = reported(usage(10, 4, total_tokens=44, completion_tokens_details=details))

    assert found == Reported(Meters(input=10, output=34), reasoning=30)


def test_embeddings_have_no_output() -> None:
    assert reported({"prompt_tokens": 8, "total_tokens": 8}) == Reported(Meters(input=8))


def test_zero_is_a_figure_and_nothing_is_not() -> None:
    assert reported(usage(0, 0)) == Reported(Meters())
    assert reported(None) is None


@pytest.mark.parametrize(
    "figures",
    [
        {},
        [],
        "12",
        12,
        usage("10"),
        usage(-1),
        usage(10, -4),
        usage(10, 4.5),
        usage(True, 4),
        usage(1 << 60),
        {"prompt_tokens": 10},
        {"completion_tokens": 10},
        {"prompt_tokens": 10, "total_tokens": 4},
    ],
)
def test_what_is_no_count_is_no_usage(figures: Any) -> None:
    assert reported(figures) is None


def test_odd_details_do_not_hide_the_figures() -> None:
    for details in (None, [], "x", {"cached_tokens": None}, {"cached_tokens": "6"}):
        assert reported(usage(prompt_tokens_details=details)) == Reported(
            Meters(input=10, output=4)
        )


# ---- plain answers ----


def test_a_plain_answer_gives_its_reasons_and_its_text() -> None:
    message = {"role": "assistant", "content": "Hello", "reasoning_content": "Hm. "}
    choices = [
        {"message": message, "finish_reason": "stop"},
        {"message": {"content": None, "refusal": "No."}, "finish_reason": "length"},
    ]
    read = DIALECT.read_answer(json.dumps({"choices": choices, "usage": usage()}).encode())

    assert read.readable
    assert read.finish_reasons == ("stop", "length")
    assert read.text == "HelloHm. No."
    assert read.reported == Reported(Meters(input=10, output=4))


def test_embeddings_are_readable_without_choices() -> None:
    body = {"data": [{"embedding": [0.5] * 8}], "usage": {"prompt_tokens": 3, "total_tokens": 3}}

    assert DIALECT.read_answer(json.dumps(body).encode()).readable


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>busy</html>",
        b'{"choices": [',
        b"[]",
        b"null",
        b"{}",
        b"\xff\xfe{}",
        b'{"error": {"message": "no"}}',
        b'{"choices": [], "error": {"message": "no"}}',
        b'{"choices": {"a": 1}}',
        b"[" * 100_000,
    ],
)
def test_what_is_not_an_answer_is_told_so(body: bytes) -> None:
    read = DIALECT.read_answer(body)
    assert not read.readable


# ---- streams ----


def test_text_is_counted_in_bytes_and_kept_for_counting() -> None:
    meter, seen = fed(delta("Grüße"), delta(" 世界"), delta("", "stop"))

    assert [s.text_bytes for s in seen] == [7, 7, 0]
    assert (meter.text_bytes, meter.chunks) == (14, 2)
    assert meter.generated_text() == "Grüße 世界"
    assert meter.finish_reasons == ("stop",)
    assert seen[2].finish_reason == "stop"


def test_reasoning_refusals_and_tool_arguments_are_generated_text_too() -> None:
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"x":'}}
    meter, _ = fed(
        delta(reasoning_content="a"),
        delta(reasoning="b"),
        delta(refusal="c"),
        delta(tool_calls=[call]),
        delta(function_call={"arguments": "1}"}),
        delta([{"type": "thinking", "thinking": [{"type": "text", "text": "d"}]}]),
        {"choices": [{"text": "e", "index": 0, "finish_reason": None}]},
    )

    assert meter.generated_text() == 'abcf{"x":1}de'
    assert meter.chunks == 7


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            {
                "index": 0,
                "id": "call_1",
                "type": "custom",
                "custom": {"name": "sql", "input": "SELECT"},
            },
            "sqlSELECT",
        ),
        ({"index": 0, "custom": {"input": "SELECT"}}, "SELECT"),
        ({"index": 0, "function": {"arguments": {"type": "long", "of": ["a", "b"]}}}, "longab"),
        ({"index": 0, "function": "f", "arguments": "x"}, "fx"),
        (
            {"id": "call_1", "type": "search", "query": "weather", "thought": {"text": "hm"}},
            "weatherhm",
        ),
        ("spoken", "spoken"),
    ],
)
def test_whatever_a_tool_call_says_is_generated_text(call: Any, text: str) -> None:
    meter, seen = fed(delta(tool_calls=[call]))
    message = {"choices": [{"message": {"content": None, "tool_calls": [call]}}]}
    read = DIALECT.read_answer(json.dumps(message).encode())

    assert meter.generated_text() == read.text == text
    assert seen == [Seen(len(text))]
    assert read.readable


def test_calls_of_a_kind_that_is_no_list_hide_nothing() -> None:
    meter, seen = fed(delta("a", tool_calls={"0": {"input": "b"}}, function_call="c"))

    assert meter.generated_text() == "abc"
    assert seen == [Seen(3)]


def test_reasoning_under_two_names_is_counted_once() -> None:
    meter, _ = fed(delta(reasoning_content="abc", reasoning="abc"))
    assert meter.text_bytes == 3


def test_several_choices_in_one_event_are_all_counted() -> None:
    two = [
        {"index": n, "delta": {"content": "ab"}, "finish_reason": "stop" if n else None}
        for n in (0, 1)
    ]
    meter, seen = fed({"choices": two})

    assert meter.text_bytes == 4
    assert seen[0].finish_reason == "stop"


def test_the_usage_chunk_is_known_for_what_it_is() -> None:
    meter, seen = fed(delta("a"), delta(None, "stop"), {"choices": [], "usage": usage()})

    assert [s.usage_only for s in seen] == [False, False, True]
    assert [s.usage for s in seen] == [False, False, True]
    assert meter.reported == Reported(Meters(input=10, output=4))


def test_a_broken_usage_chunk_is_still_only_usage() -> None:
    meter, seen = fed({"choices": [], "usage": {"prompt_tokens": "many"}})

    assert seen == [Seen(usage_only=True)]
    assert meter.reported is None


def test_a_chunk_without_choices_or_usage_belongs_to_the_client() -> None:
    _, seen = fed({"choices": [], "prompt_filter_results": []}, {"id": "x"})
    assert seen == [Seen(), Seen()]


def test_usage_on_every_chunk_and_usage_twice_leave_the_last() -> None:
    meter, seen = fed(
        delta("a") | {"usage": usage(10, 1)},
        delta("b", "stop") | {"usage": usage(10, 2)},
        {"choices": [], "usage": usage(10, 3)},
    )

    assert [s.usage for s in seen] == [True, True, True]
    assert [s.usage_only for s in seen] == [False, False, True]
    assert meter.text_bytes == 2
    assert meter.reported == Reported(Meters(input=10, output=3))


@pytest.mark.parametrize(
    "mark", [b"data: [DONE]\n\n", b"data:[DONE]\r\n\r\n", b"data: [DONE] \n\n"]
)
def test_the_end_mark_is_seen(mark: bytes) -> None:
    meter, seen = fed(mark)
    assert seen == [Seen(done=True)]
    assert meter.done


@pytest.mark.parametrize(
    ("told", "code"),
    [
        (event({"error": {"message": "m", "code": 400, "type": "t"}}), "400"),
        (event({"error": {"message": "m", "code": None, "type": "server_error"}}), "server_error"),
        (event({"error": "boom"}), ""),
        (event({"object": "error", "message": "m"}), ""),
        (b'event: error\ndata: {"message": "m"}\n\n', ""),
        (event({"choices": [], "error": {"code": "x" * 1000}}), "x" * 64),
    ],
)
def test_an_error_inside_the_stream_is_seen(told: bytes, code: str) -> None:
    meter, seen = fed(delta("a"), told)
    assert seen[1] == Seen(error=True)
    assert meter.error_code == code


@pytest.mark.parametrize("quiet", [b": ping\n\n", b"\n\n", b"data:\n\n", b"retry: 5\n\n"])
def test_comments_and_empty_events_mean_nothing(quiet: bytes) -> None:
    assert fed(quiet)[1] == [Seen()]


@pytest.mark.parametrize(
    "odd",
    [
        b"data: <html>\n\n",
        b'data: {"choices": [\n\n',
        b"data: 7\n\n",
        b"data: " + b"[" * 50_000 + b"\n\n",
        b'data: {"choices": {}}\n\n',
    ],
)
def test_data_that_is_not_this_dialect_is_told_so(odd: bytes) -> None:
    assert fed(odd)[1] == [Seen(unreadable=True)]


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n", "\r\r"])
def test_line_ends_spacing_and_splitting_over_lines_do_not_matter(end: str) -> None:
    line = end[: len(end) // 2]
    pretty = json.dumps(delta("abc"), indent=1).replace("\n", f"{line}data: ")
    meter, _ = fed(
        event(delta("abc"), end),
        f"data: {pretty}{end}".encode(),
        b"\xef\xbb\xbf" + event(delta("abc"), end),
        f"id: 7{line}data:{json.dumps(delta('abc'))}{end}".encode(),
    )
    assert meter.generated_text() == "abc" * 4


def test_only_so_much_text_is_kept_and_all_of_it_is_counted() -> None:
    word = "ü" * 50
    meter, _ = fed(*[delta(word)] * 5000)

    kept = meter.generated_text()
    assert meter.text_bytes == 5000 * 100
    assert TEXT_KEPT_BYTES - 2 < len(kept.encode()) <= TEXT_KEPT_BYTES
    assert (word * 5000).startswith(kept)


def test_a_lone_surrogate_does_not_stop_the_meter() -> None:
    meter, _ = fed(b'data: {"choices":[{"delta":{"content":"a\\ud800b"}}]}\n\n', delta("c"))
    assert meter.generated_text().endswith("c")


NAMES = [
    *("choices", "delta", "message", "content", "text", "usage", "error", "finish_reason", "data"),
    *("tool_calls", "function", "arguments", "name", "refusal", "function_call", "reasoning"),
    *("prompt_tokens", "completion_tokens", "prompt_tokens_details", "cached_tokens", "object"),
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(NAMES),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(chunk=json_values)
def test_no_json_stops_the_meter_or_the_reader(chunk: Any) -> None:
    meter, _ = fed(chunk)
    assert meter.text_bytes >= 0
    DIALECT.read_answer(json.dumps(chunk).encode())


@given(data=st.binary(max_size=100))
def test_no_bytes_stop_the_meter(data: bytes) -> None:
    fed(data, b"data: " + data + b"\n\n")
