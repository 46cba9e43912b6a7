"""A chat as nearly all are: text alone, and no field that is not as it should be. Envelope and
messages are read in one decode; whatever is not taken is read the long way, which also says what is
wrong with it.
"""

from typing import Final

import msgspec

from gateway.dataplane.envelope import Envelope
from gateway.dataplane.media import Text


class _Chat(Envelope, frozen=True, kw_only=True):
    messages: list[Text]


_CHAT: Final = msgspec.json.Decoder(_Chat)
_UNDECODABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def plain_chat(body: bytes) -> tuple[Envelope, int] | None:
    """The envelope, and how many messages there are; None: it may be anything."""
    try:
        chat = _CHAT.decode(body)
    except _UNDECODABLE:
        return None
    if not chat.messages:
        return None
    # Not the chat itself: for as long as the request lasts it would keep the prompt once more.
    envelope = Envelope(
        chat.model,
        chat.stream,
        chat.stream_options,
        chat.max_tokens,
        chat.max_completion_tokens,
        chat.n,
        chat.best_of,
        chat.response_format,
    )
    return envelope, len(chat.messages)
