"""The body as the backend gets it: three fields replaced, every other value byte for byte."""

from typing import Final

import msgspec

from billing.service_tiers import ASKABLE, asked_tier
from gateway.dataplane.envelope import Fields, absent, given
from policies.decision import Deny, DenyCode

OUTPUT_FIELDS: Final = ("max_completion_tokens", "max_tokens")
_FIELDS: Final = msgspec.json.Decoder(Fields)
_encode: Final = msgspec.json.Encoder().encode

# What we act on. Some servers read keys without regard to case: `N` must not say more than `n`.
_OURS: Final = frozenset(
    (
        *("model", "messages", "prompt", "input", "stream", "stream_options", "n", "best_of"),
        *("tools", "functions", "response_format", "max_tokens", "max_completion_tokens"),
        "service_tier",
    )
)
# What else the API has: passed on as it came.
_KNOWN: Final = _OURS | frozenset(
    (
        *("audio", "frequency_penalty", "logit_bias", "logprobs", "metadata", "modalities"),
        *("parallel_tool_calls", "prediction", "presence_penalty", "reasoning_effort", "seed"),
        *("stop", "store", "temperature", "tool_choice", "top_logprobs", "top_p"),
        *("user", "dimensions", "encoding_format", "echo", "suffix"),
    )
)
# Names under which engines take an output limit, more choices or a template of the caller's own.
# They would say more than the hold covers, so they are refused and not passed on.
_AROUND: Final = {
    "n_predict": "max_tokens",
    "num_predict": "max_tokens",
    "max_new_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "max_gen_len": "max_tokens",
    "max_length": "max_tokens",
    "n_cmpl": "n",
    "num_return_sequences": "n",
    "num_beams": "n",
    "chat_template": "the model's own template",
}


# What may stand in `service_tier`, as it is sent, and which tier it asks for; None: no tier at all.
SERVICE_TIERS: Final[dict[bytes, str | None]] = {
    **{b'"%b"' % name.encode(): asked_tier(name) for name in ASKABLE},
    b"null": None,
}


def around_limits(fields: Fields) -> Deny | None:
    """A field that goes around a limit, whatever its name is made to look like."""
    tier = fields.get("service_tier")
    if tier is not None and bytes(tier) not in SERVICE_TIERS:
        return Deny(
            DenyCode.UNPRICED_MODEL,
            "service_tier: this is no tier that prices are known by here; leave it out, or ask for"
            " auto, default, batch, flex or priority",
            param="service_tier",
        )
    if fields.keys() <= _KNOWN:
        return None
    for name in fields.keys() - _KNOWN:
        folded = name.casefold()
        if folded in _AROUND:
            return Deny(
                DenyCode.INVALID_REQUEST,
                f"{name}: cannot be used through this gateway; use {_AROUND[folded]}",
                param=name,
            )
        if folded in _OURS:
            return Deny(DenyCode.INVALID_REQUEST, f"{name}: write it as {folded}", param=name)
    return None


def rewrite(
    sent: Fields,
    *,
    model: str,
    output_tokens: int | None,
    output_field: str,
    include_usage: bool,
    stream: bool = False,
) -> bytes:
    """Model name, output clamp and `stream_options` replaced. `output_tokens` None leaves the
    output fields alone (embeddings); `output_field` is used where the client named none. With
    `stream` the answer is streamed, whatever the client asked for.
    """
    fields: dict[str, msgspec.Raw | str | int] = {**sent, "model": model}
    if stream:
        fields["stream"] = True
    if output_tokens is not None:
        named = False
        for name in OUTPUT_FIELDS:
            if name not in sent:
                continue
            if absent(sent[name]):
                del fields[name]
            else:
                fields[name], named = output_tokens, True
        if not named:
            fields[output_field] = output_tokens
    if include_usage:
        options = given(sent, "stream_options")
        merged = {} if absent(options) else _FIELDS.decode(options)
        merged["include_usage"] = msgspec.Raw(b"true")
        fields["stream_options"] = msgspec.Raw(msgspec.json.encode(merged))
    return _encode(fields)
