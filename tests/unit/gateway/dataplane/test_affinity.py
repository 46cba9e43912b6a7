import msgspec

from gateway.dataplane.affinity import FIRST_BYTES, Prefixes

PREFIXES = Prefixes(b"k" * 32)


def of(text: str, prefixes: Prefixes = PREFIXES, tenant: str = "tn_1", model: str = "m") -> int:
    body = {"messages": msgspec.Raw(msgspec.json.encode([{"role": "user", "content": text}]))}
    return prefixes.of(body, "chat", tenant, model)


def test_prompts_that_begin_alike_have_one_number_and_others_another() -> None:
    begins = "x" * FIRST_BYTES

    assert 0 < of(begins + "one") < 65_536
    assert of(begins + "one") == of(begins + "another")
    assert of("y" + begins) != of(begins)


def test_tenants_models_and_secrets_have_numbers_of_their_own() -> None:
    long = "x" * FIRST_BYTES
    numbers = {
        of(long),
        of(long, tenant="tn_2"),
        of(long, model="n"),
        of(long, Prefixes(b"l" * 32)),
    }
    assert len(numbers) == 4


def test_a_short_prompt_and_none_have_no_number() -> None:
    assert of("hello") == 0
    assert PREFIXES.of({}, "chat", "tn_1", "m") == 0
    prompt = {"prompt": msgspec.Raw(b'"' + b"x" * FIRST_BYTES + b'"')}
    assert PREFIXES.of(prompt, "completions", "tn_1", "m") > 0
    assert PREFIXES.of(prompt, "chat", "tn_1", "m") == 0
