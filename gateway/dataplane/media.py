"""What chat messages hold besides text: counted, or said to be of unknown size."""

from typing import Final

import msgspec

_SIZED: Final = frozenset(("text", "image_url", "refusal"))


class Text(msgspec.Struct, frozen=True, gc=False):
    """A message of nothing but text. The decoder knows a key however it is spelled."""

    content: str | None = None
    audio: None = None


_TEXTS: Final = msgspec.json.Decoder(list[Text])


def text_messages(messages: msgspec.Raw) -> int | None:
    """How many messages there are, if none of them holds anything but text."""
    try:
        return len(_TEXTS.decode(messages))
    except (msgspec.DecodeError, RecursionError):
        return None


class MediaParts(msgspec.Struct, frozen=True):
    """What the messages hold besides text."""

    text_bytes: int  # JSON bytes of everything that is not inline media
    images: int
    audio: int
    unsized: bool  # a file, a video, an image elsewhere: its size cannot be known here


class _Url(msgspec.Struct, frozen=True):
    url: str = ""


class _Part(msgspec.Struct, frozen=True):
    type: str = ""
    image_url: _Url | str | None = None
    input_audio: msgspec.Raw = msgspec.Raw(b"")


class _Message(msgspec.Struct, frozen=True):
    content: list[_Part] | str | None = None
    audio: msgspec.Raw = msgspec.Raw(b"")


_MESSAGES: Final = msgspec.json.Decoder(list[_Message])


def media_parts(raw: msgspec.Raw) -> MediaParts:
    """Counts media in chat messages. Content that cannot be read counts as unsized, never as
    nothing; so does every kind of part that we do not know.
    """
    size = len(memoryview(raw))
    try:
        messages = _MESSAGES.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return MediaParts(size, 0, 0, unsized=True)
    parts = [part for m in messages if isinstance(m.content, list) for part in m.content]
    images = [part.image_url for part in parts if part.image_url is not None]
    urls = [image if isinstance(image, str) else image.url for image in images]
    inline = sum(len(url) for url in urls if url.startswith("data:"))
    sounds = [len(memoryview(part.input_audio)) for part in parts]
    audio = sum(1 for sound in sounds if sound)
    spoken = any(len(memoryview(m.audio)) > 4 for m in messages)  # a reference to earlier audio
    unsized = bool(audio) or spoken or any(not url.startswith("data:") for url in urls)
    unsized = unsized or any(part.type not in _SIZED for part in parts)
    return MediaParts(size - inline - sum(sounds), len(images), audio, unsized)
