"""A request's body, from its first byte to what it says, and how much of bodies a worker may hold.

A body that came whole with its head, as nearly all do, is read at once. One that is still on its
way counts from its head to the end of its reading: as large as its head says, or as what has come
where that is more. No limit can do this: limits are asked once the request is known.
"""

from types import TracebackType
from typing import Final, Self

from litestar.types import Receive

from gateway.dataplane.arrival import Arrival
from gateway.dataplane.flow import Flow
from gateway.dataplane.hangup import ClientGone
from gateway.dataplane.reading import LARGE_BYTES, LargeBodies, Reading, read
from policies.decision import Deny, DenyCode

AT_ONCE_BYTES: Final = 64 * 1024  # the connection holds as much before anybody asks for it
KEYS_AT_LEAST: Final = 4  # one key with several bodies has no more than so large a part of the room

_RETRY_MS: Final = 1_000
_FULL: Final = Deny(
    DenyCode.OVERLOADED,
    "as many bytes of request bodies are on their way to this gateway as it can hold; retry later",
    retry_after_ms=_RETRY_MS,
)
_ENCODED: Final = Deny(
    DenyCode.INVALID_REQUEST,
    "content-encoding: send the body uncompressed",
    param="content-encoding",
)


class Room:
    """How many bytes of bodies one worker may be reading, and how many of them one key."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._most_key_bytes = most_bytes // KEYS_AT_LEAST
        self._keys: dict[str, int] = {}  # bytes by key id, of the keys that have any
        self.bytes = 0

    def place(self, key_id: str) -> "Place":
        return Place(self, key_id)

    def move(self, key_id: str, held_bytes: int, wanted_bytes: int) -> Deny | None:
        """One body of a key counts as `wanted_bytes` from now on, or still as what it had. A key's
        only body may take whatever room there is.
        """
        others = self._keys.get(key_id, 0) - held_bytes
        if wanted_bytes > held_bytes:
            if others and others + wanted_bytes > self._most_key_bytes:
                return _too_many(self._most_key_bytes)
            if self.bytes - held_bytes + wanted_bytes > self._most_bytes:
                return _FULL
        self.bytes += wanted_bytes - held_bytes
        if others + wanted_bytes:
            self._keys[key_id] = others + wanted_bytes
        else:
            self._keys.pop(key_id, None)
        return None


class Place:
    """What one body takes of the room, until the block it is used in ends, however it ends."""

    __slots__ = ("_bytes", "_key_id", "_room")

    def __init__(self, room: Room, key_id: str) -> None:
        self._room = room
        self._key_id = key_id
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._room.move(self._key_id, self._bytes, 0)
        self._bytes = 0

    def grow(self, size: int) -> Deny | None:
        """To `size` bytes, where it is not as large already. A Deny: it stays as it was."""
        if size <= self._bytes:
            return None
        deny = self._room.move(self._key_id, self._bytes, size)
        if deny is None:
            self._bytes = size
        return deny


class Bodies:
    """Every body that one worker reads."""

    def __init__(self, most_bytes: int, room: Room, large: LargeBodies) -> None:
        self._most_bytes = most_bytes  # of one body
        self.room = room
        self._large = large

    def unreadable(self, arrival: Arrival) -> Deny | None:
        """What the head tells of a body that need not be read at all."""
        if arrival.content_length > self._most_bytes:
            return _body_too_large(self._most_bytes)
        return None if arrival.content_encoding in (b"", b"identity") else _ENCODED

    async def read(self, flow: Flow, key_id: str, receive: Receive) -> Reading | Deny:
        """The whole body, and what it says. ClientGone when the client leaves before it has sent
        all of it; a Deny, before more of it is read, when it is too much for one body or the room.
        """
        begun = b""
        if flow.arrival.content_length <= AT_ONCE_BYTES:
            message = await receive()
            if message["type"] != "http.request":
                raise ClientGone
            begun = message["body"]
            if not message["more_body"]:
                if len(begun) > self._most_bytes:
                    return _body_too_large(self._most_bytes)
                flow.body = begun
                return await self._understood(flow)
        with self.room.place(key_id) as place:
            deny = place.grow(max(flow.arrival.content_length, len(begun)))
            if deny is None:
                deny = await self._gather(flow, bytearray(begun), place, receive)
            return await self._understood(flow) if deny is None else deny

    async def _gather(
        self, flow: Flow, body: bytearray, place: Place, receive: Receive
    ) -> Deny | None:
        """One growing piece of memory: thousands of small ones would take many times their size."""
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                raise ClientGone
            part, more = message["body"], message["more_body"]
            size = len(body) + len(part)
            if size > self._most_bytes:
                return _body_too_large(self._most_bytes)
            if (deny := place.grow(size)) is not None:
                return deny
            body += part
        flow.body = bytes(body)
        return None

    async def _understood(self, flow: Flow) -> Reading | Deny:
        if len(flow.body) <= LARGE_BYTES:
            return read(flow.body, flow.operation)
        return await self._large.read(flow.body, flow.operation)


def _body_too_large(most: int) -> Deny:
    return Deny(
        DenyCode.REQUEST_TOO_LARGE, f"the body is larger than {most} bytes; send a smaller one"
    )


def _too_many(most_key_bytes: int) -> Deny:
    return Deny(
        DenyCode.OVERLOADED,
        f"this key has other bodies on their way, and they may be {most_key_bytes} bytes together;"
        " retry when they have arrived, and send them one after the other",
        retry_after_ms=_RETRY_MS,
    )
