"""Bodies that are begun and not finished: they fill no worker's memory, and nobody else's way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec

from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_backend import ScriptedBackend

BODY_BYTES = 200_000
PATH = "/v1/chat/completions"
BODY = (
    msgspec.json.encode(
        {
            "model": "chat",
            "max_tokens": 4,
            "messages": [{"role": "user", "content": "hello"}],
            "user": "u" * BODY_BYTES,
        }
    )[:-1].ljust(BODY_BYTES * 2 - 1)
    + b"}"
)


@asynccontextmanager
async def house_of(home: Path, store_url: str) -> AsyncIterator[tuple[House, World]]:
    """With room for two of the largest bodies, and with a quarter of that for one key's several."""
    size = str(len(BODY))
    async with (
        ScriptedBackend() as backend,
        open_house(home, store_url, MAX_BODY_BYTES=size, READING_BYTES=str(2 * len(BODY))) as house,
    ):
        yield (
            house,
            await furnish(
                house,
                {"base_url": backend.base_url},
                charge=("0", "0"),
                model={"context_window": 2_000_000},
            ),
        )


class Upload:
    """A request on a connection of its own whose body is not finished."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def piece(self, data: bytes) -> None:
        """The next one of a body that does not say how long it is."""
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def answer(self) -> tuple[int, bytes, Any]:
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        size = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return (
            int(head.split()[1]),
            head,
            msgspec.json.decode(await self._reader.readexactly(size)),
        )

    async def leave(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


async def begin(house: House, secret: str, size: int | None = len(BODY)) -> Upload:
    """Sends the head; `size` None: the body comes in chunks."""
    url = httpx.URL(house.url)
    upload = Upload(*await asyncio.open_connection(url.host, url.port))
    framing = "transfer-encoding: chunked" if size is None else f"content-length: {size}"
    await upload.send(
        f"POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {secret}\r\n"
        f"content-type: application/json\r\n{framing}\r\n\r\n".encode()
    )
    return upload


async def under_way(house: House, size: int) -> None:
    """Returns once so many bytes of bodies are."""
    while house.data.plane.bodies.room.bytes != size:
        await asyncio.sleep(0.005)


async def another_key(house: House, world: World, name: str) -> str:
    made = await house.make("keys", team_id=world.squad["id"], name=name)
    await house.in_force()
    return str(made["secret"])


def test_a_key_whose_bodies_do_not_end_is_refused_more_and_in_nobodys_way(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with house_of(tmp_path, store_url) as (house, world):
            other = await another_key(house, world, "other")
            begun = await begin(house, world.secret)
            await begun.send(BODY[:1000])
            await under_way(house, len(BODY))

            more = await begin(house, world.secret)  # not a byte of its body is sent
            status, head, said = await more.answer()
            assert (status, said["error"]["code"]) == (503, "overloaded")
            assert b"\r\nretry-after-ms: " in head

            small = await house.ask(
                world.secret, model="chat", max_tokens=4, messages=[{"role": "user", "content": ""}]
            )
            assert small.status_code == 200, small.text
            headers = {"authorization": f"Bearer {other}", "content-type": "application/json"}
            large = await house.client.post(PATH, content=BODY, headers=headers)
            assert large.status_code == 200, large.text

            await begun.send(BODY[1000:])
            assert (await begun.answer())[0] == 200
            await under_way(house, 0)
            again = await begin(house, world.secret)
            await again.send(BODY)
            assert (await again.answer())[0] == 200
            for upload in (begun, more, again):
                await upload.leave()

    run(scenario())


def test_chunks_count_as_they_come_and_those_who_hang_up_make_room(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with house_of(tmp_path, store_url) as (house, world):
            secrets = [await another_key(house, world, name) for name in ("b", "c")]
            held = [await begin(house, secret) for secret in (world.secret, secrets[0])]
            await under_way(house, 2 * len(BODY))

            chunked = await begin(house, secrets[1], None)
            await chunked.piece(b" " * 10_000)
            status, _, said = await chunked.answer()
            await chunked.leave()
            assert (status, said["error"]["code"]) == (503, "overloaded")

            await held[0].leave()
            await under_way(house, len(BODY))
            chunked = await begin(house, secrets[1], None)
            await chunked.piece(BODY[:10_000])
            await under_way(house, len(BODY) + 10_000)
            await chunked.piece(BODY[10_000:])
            await chunked.send(b"0\r\n\r\n")
            assert (await chunked.answer())[0] == 200
            await chunked.leave()
            await under_way(house, len(BODY))
            await held[1].leave()
            await under_way(house, 0)

    run(scenario())
