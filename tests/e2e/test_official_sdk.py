"""The official OpenAI SDK, unchanged, on a running gateway with real models behind it: what it gets
is what the ledger has, and each refusal is the exception that the SDK has for it.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pydantic
import pytest

from tests.e2e.sdk_house import SdkHouse, sdk_house
from tests.running import run

pytestmark = pytest.mark.engine

FRUITS: Any = [{"role": "user", "content": "Name three fruits."}]
TALE: Any = [{"role": "user", "content": "Tell me a long story about the sea."}]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SdkHouse]:
    with sdk_house(tmp_path_factory.mktemp("sdk")) as found:
        yield found


def counts(attempt: dict[str, Any]) -> tuple[int, int, int]:
    """(input, of which from the cache, output) of a ledger's attempt."""
    usage = attempt["usage"]
    return usage["input"] + usage["cache_read"], usage["cache_read"], usage["output"]


def reported(usage: Any) -> tuple[int, int, int]:
    """The same as the SDK shows it."""
    cached = usage.prompt_tokens_details.cached_tokens or 0
    return usage.prompt_tokens, cached, usage.completion_tokens


# --- Answers -----------------------------------------------------------------------------------


def test_a_chat_is_answered_and_booked_to_the_token(
    running: SdkHouse, figure: Callable[[str], None]
) -> None:
    with running.sdk() as client:
        answer = client.chat.completions.create(model="chat", messages=FRUITS, max_tokens=24)

    assert (answer.choices[0].message.content or "").strip()
    assert answer.usage is not None
    assert 0 < answer.usage.completion_tokens <= 24
    attempt = running.booked(answer._request_id)
    assert counts(attempt) == reported(answer.usage)
    assert (attempt["provenance"], attempt["hold"]) == ("reported", "settled")
    figure(f"chat: {answer.choices[0].message.content!r}, {reported(answer.usage)} tokens")


def test_two_choices_are_answered_and_booked_together(running: SdkHouse) -> None:
    with running.sdk() as client:
        answer = client.chat.completions.create(model="chat", messages=FRUITS, max_tokens=8, n=2)

    assert [choice.index for choice in answer.choices] == [0, 1]
    assert counts(running.booked(answer._request_id)) == reported(answer.usage)


def test_a_stream_without_usage_shows_none_and_is_booked_all_the_same(running: SdkHouse) -> None:
    with running.sdk() as client:
        raw = client.chat.completions.with_raw_response.create(
            model="chat", messages=FRUITS, max_tokens=16, stream=True
        )
        with raw.parse() as stream:
            chunks = list(stream)

    words = [chunk.choices[0].delta.content for chunk in chunks]
    assert "".join(word or "" for word in words).strip()
    assert len([word for word in words if word]) > 3  # as they came, not in one piece
    assert chunks[-1].choices[0].finish_reason in {"stop", "length"}
    assert [chunk.usage for chunk in chunks] == [None] * len(chunks)
    attempt = running.booked(raw.headers["x-request-id"])
    assert attempt["provenance"] == "reported"
    assert 0 < attempt["usage"]["output"] <= 16


def test_a_stream_with_usage_ends_with_what_the_ledger_has(
    running: SdkHouse, figure: Callable[[str], None]
) -> None:
    with running.sdk() as client:
        raw = client.chat.completions.with_raw_response.create(
            model="chat",
            messages=FRUITS,
            max_tokens=16,
            stream=True,
            stream_options={"include_usage": True},
        )
        with raw.parse() as stream:
            chunks = list(stream)

    assert [bool(chunk.usage) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].choices == []
    attempt = running.booked(raw.headers["x-request-id"])
    assert counts(attempt) == reported(chunks[-1].usage)
    figure(f"stream of {len(chunks)} chunks: {reported(chunks[-1].usage)} tokens")


def test_a_json_schema_reaches_the_model_and_the_sdk_parses_its_answer(running: SdkHouse) -> None:
    class Fruit(pydantic.BaseModel):
        name: str
        ripe: bool

    with running.sdk() as client:
        answer = client.chat.completions.parse(
            model="chat", messages=FRUITS, max_tokens=200, temperature=0, response_format=Fruit
        )

    assert isinstance(answer.choices[0].message.parsed, Fruit)


def test_completions_are_answered_whole_and_as_a_stream(running: SdkHouse) -> None:
    ask: Any = {"model": "chat", "prompt": "The capital of France is", "max_tokens": 8}
    with running.sdk() as client:
        whole = client.completions.create(**ask, temperature=0)
        with client.completions.create(**ask, temperature=0, stream=True) as stream:
            pieces = [chunk.choices[0].text for chunk in stream]

    assert "Paris" in whole.choices[0].text
    assert "".join(pieces) == whole.choices[0].text
    assert len(pieces) > 2
    assert counts(running.booked(whole._request_id)) == reported(whole.usage)


def test_embeddings_tell_a_kitten_from_revenue(
    running: SdkHouse, figure: Callable[[str], None]
) -> None:
    with running.sdk() as client:
        raw = client.embeddings.with_raw_response.create(
            model="embed", input=["cat", "kitten", "revenue"]
        )
        answer = raw.parse()
        as_floats = client.embeddings.create(model="embed", input="cat", encoding_format="float")

    cat, kitten, revenue = (each.embedding for each in answer.data)
    assert [len(cat), len(kitten), len(revenue)] == [384] * 3
    near, far = dot(cat, kitten), dot(cat, revenue)
    assert near > 0.5 > far
    assert as_floats.data[0].embedding == pytest.approx(cat, abs=0.02)
    attempt = running.booked(raw.headers["x-request-id"])
    assert counts(attempt) == (answer.usage.prompt_tokens, 0, 0)
    figure(f"embeddings: cat and kitten {near:.2f}, cat and revenue {far:.2f}")


def dot(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def test_models_are_listed_and_found(running: SdkHouse) -> None:
    with running.sdk() as client:
        listed = {model.id for model in client.models.list()}
        one = client.models.retrieve("chat")
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.retrieve("gpt-nothing")
    with running.sdk("narrow") as client:
        narrow = [model.id for model in client.models.list()]

    assert {"chat", "embed", "scripted"} <= listed
    assert (one.id, one.object) == ("chat", "model")
    assert caught.value.code == "model_not_found"
    assert narrow == ["embed"]


def test_twenty_requests_of_the_async_sdk_at_once_are_all_answered(running: SdkHouse) -> None:
    async def scenario() -> list[Any]:
        url = f"{running.up.url('gateway')}/v1"
        async with openai.AsyncOpenAI(
            base_url=url, api_key=running.secrets["app"], max_retries=0, timeout=60
        ) as client:
            return await asyncio.gather(
                *(
                    client.chat.completions.create(model="chat", messages=FRUITS, max_tokens=4)
                    for _ in range(20)
                )
            )

    answers = run(scenario())
    assert len({answer._request_id for answer in answers}) == 20
    for answer in answers:
        assert counts(running.booked(answer._request_id)) == reported(answer.usage)


def test_a_real_model_held_in_slices_is_cut_where_its_budget_ends(
    running: SdkHouse, figure: Callable[[str], None]
) -> None:
    with running.sdk("sparing") as client:
        answer = client.chat.completions.create(model="chat", messages=TALE, max_tokens=1500)

    (choice,) = answer.choices
    assert choice.finish_reason == "length"
    assert (choice.message.content or "").strip()
    assert (answer.model_extra or {})["meterhouse"]["code"] == "insufficient_quota"
    attempt = running.booked(answer._request_id)
    assert counts(attempt) == reported(answer.usage)
    assert attempt["end_by"] == "limit"
    figure(f"a plain answer on a budget of 0.015: {answer.usage}")


# --- Refusals and faults -----------------------------------------------------------------------

BAD, AUTH, NO, MISSING = (
    openai.BadRequestError,
    openai.AuthenticationError,
    openai.PermissionDeniedError,
    openai.NotFoundError,
)
BUSY, DOWN, OTHER = openai.RateLimitError, openai.InternalServerError, openai.APIStatusError
LONG: Any = [{"role": "user", "content": "word " * 3000}]
HUGE: Any = [{"role": "user", "content": "x" * (33 << 20)}]

REFUSALS: list[tuple[str, dict[str, Any], type[openai.APIStatusError], int, str]] = [
    ("mh_nonsense", {}, AUTH, 401, "invalid_api_key"),
    ("sk-of-another-house", {}, AUTH, 401, "invalid_api_key"),
    ("revoked", {}, AUTH, 401, "invalid_api_key"),
    ("narrow", {}, NO, 403, "model_not_allowed"),
    ("european", {"model": "chat-abroad"}, NO, 403, "residency_violation"),
    ("frugal", {}, NO, 403, "cost_ceiling_exceeded"),
    ("app", {"model": "unpriced"}, NO, 403, "unpriced_model"),
    ("app", {"model": "gpt-nothing"}, MISSING, 404, "model_not_found"),
    ("app", {"max_tokens": "many"}, BAD, 400, "invalid_request"),
    ("app", {"messages": []}, BAD, 400, "invalid_request"),
    ("app", {"model": "embed"}, BAD, 400, "unsupported_capability"),
    ("app", {"messages": LONG}, BAD, 400, "context_length_exceeded"),
    ("app", {"messages": HUGE}, OTHER, 413, "request_too_large"),
    ("poor", {"max_tokens": 2000}, BUSY, 429, "insufficient_quota"),
    ("app", {"model": "nobody"}, DOWN, 503, "no_backend"),
]


def fault(running: SdkHouse, key: str, **body: Any) -> openai.APIStatusError:
    """The exception that a chat with this key ends in."""
    asked: dict[str, Any] = {"model": "chat", "messages": FRUITS, "max_tokens": 8} | body
    with running.sdk(key) as client, pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(**asked)
    return caught.value


def shown(found: openai.APIStatusError) -> str:
    return f"{found.status_code} {found.code}: {type(found).__name__}"


def test_each_refusal_is_the_exception_that_the_sdk_has_for_it(
    running: SdkHouse, figure: Callable[[str], None]
) -> None:
    revoke(running, "revoked")
    told = []
    for key, body, kind, status, code in REFUSALS:
        found = fault(running, key, **body)
        assert (type(found), found.status_code, found.code) == (kind, status, code), found
        assert found.request_id
        assert found.message
        told.append(shown(found))
    assert fault(running, "app", max_tokens="many").param == "max_tokens"
    figure("\n".join(dict.fromkeys(told)))


def revoke(running: SdkHouse, name: str) -> None:
    """The key is out of force when this returns."""
    with running.up.admin() as admin:
        (key,) = admin.get("/keys", params={"name": name}).json()["items"]
        assert admin.post(f"/keys/{key['id']}/revoke", json={}).is_success
    with running.sdk(name) as client:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                client.models.list()
            except openai.AuthenticationError:
                return
            time.sleep(0.02)
    raise AssertionError("a revoked key still works")


def test_a_rate_limit_is_told_with_when_to_come_back(running: SdkHouse) -> None:
    with running.sdk("hasty") as client:
        client.embeddings.create(model="embed", input="first")
        with pytest.raises(openai.RateLimitError) as caught:
            client.embeddings.create(model="embed", input="second")

    assert caught.value.code == "rate_limit_exceeded"
    assert 0 < int(caught.value.response.headers["retry-after"]) <= 60


def test_the_sdk_left_to_itself_waits_a_rate_limit_out(running: SdkHouse) -> None:
    with running.sdk("patient", max_retries=2) as client:
        embed = client.embeddings.with_raw_response.create
        answers = [embed(model="embed", input=f"text {n}") for n in range(12)]

    assert [answer.status_code for answer in answers] == [200] * 12
    assert [answer.retries_taken for answer in answers[:10]] == [0] * 10  # what a minute's limit
    assert sum(answer.retries_taken for answer in answers) > 0  # of 60 lets through at once


FAULTS: list[tuple[dict[str, Any], int, str]] = [
    ({"status": 500}, 502, "upstream_error"),
    ({"status": 401}, 502, "upstream_error"),
    ({"body": "<html>", "content_type": "text/html"}, 502, "upstream_error"),
    ({"cut_at_byte": 30}, 502, "upstream_error"),
    ({"silent": True}, 504, "upstream_timeout"),
]


def test_what_a_backend_may_have_worked_on_is_never_sent_again(
    running: SdkHouse, figure: Callable[[str], None]
) -> None:
    told = []
    with running.sdk(max_retries=2) as client:
        ask: Any = {"model": "scripted", "messages": FRUITS, "max_tokens": 8}
        for behaviour, status, code in FAULTS:
            running.script(**behaviour)
            with pytest.raises(openai.InternalServerError) as caught:
                client.chat.completions.create(**ask)
            assert (caught.value.status_code, caught.value.code) == (status, code)
            assert len(running.book()) == 1
            told.append(shown(caught.value))
            running.script()
            assert client.chat.completions.create(**ask).choices  # and its breaker stays closed
    figure("\n".join(dict.fromkeys(told)))


def test_a_backend_that_is_full_is_busy_until_it_says_it_is_not(running: SdkHouse) -> None:
    running.script(status=429, retry_after="7")
    found = fault(running, "app", model="scripted")

    assert (type(found), found.code) == (openai.InternalServerError, "overloaded")
    assert int(found.response.headers["retry-after"]) >= 7
    running.script()


def test_a_client_that_loses_patience_is_metered_and_the_model_is_free_again(
    running: SdkHouse,
) -> None:
    with running.sdk(timeout=2) as client, pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model="chat", messages=TALE, max_tokens=1500)

    with running.up.admin() as admin:
        rows = admin.get("/usage/requests", params={"model": "chat"}).json()["items"]
        deadline = time.monotonic() + 60
        while rows[-1]["attempts"][0]["end_by"] != "client" and time.monotonic() < deadline:
            time.sleep(0.1)
            rows = admin.get("/usage/requests", params={"model": "chat"}).json()["items"]
        (budget,) = [b for b in admin.get("/budgets").json()["items"] if b["amount"] == "100"]
    attempt = rows[-1]["attempts"][0]
    assert attempt["end_by"] == "client"
    assert attempt["usage"]["input"] + attempt["usage"]["cache_read"] > 0
    assert budget["held"] == "0"
    with running.sdk(timeout=60) as client:
        assert client.chat.completions.create(model="chat", messages=FRUITS, max_tokens=4).choices


def test_no_gateway_at_all_is_a_connection_error(running: SdkHouse) -> None:
    with (
        running.sdk(base_url="http://127.0.0.1:9/v1") as client,
        pytest.raises(openai.APIConnectionError),
    ):
        client.models.list()


def read_until_it_breaks(stream: Any, words: list[str | None], after_ten: Any) -> None:
    for chunk in stream:
        assert chunk.choices[0].finish_reason is None
        words.append(chunk.choices[0].delta.content)
        if len(words) == 10:
            after_ten()


def test_a_model_killed_in_the_middle_of_a_stream_never_looks_like_an_end(
    running: SdkHouse,
) -> None:
    words: list[str | None] = []
    with running.sdk() as client:
        raw = client.chat.completions.with_raw_response.create(
            model="chat-mortal", messages=TALE, max_tokens=1500, stream=True
        )
        with raw.parse() as stream, pytest.raises(openai.APIError) as caught:
            read_until_it_breaks(stream, words, running.mortal.kill)

    assert caught.value.code == "upstream_error"
    attempt = running.booked(raw.headers["x-request-id"])
    assert attempt["provenance"] == "counted"
    assert attempt["usage"]["input"] > 0
    assert 5 <= attempt["usage"]["output"] <= len(words) + 5
    assert fault(running, "app", model="chat-mortal").status_code == 503
