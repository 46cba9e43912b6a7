"""Heads that a proxy may read otherwise than we do, and what is answered to those before them."""

import itertools
from typing import Any

from gateway.app.inbound import Inbound
from tests.loops import ON_BOTH_LOOPS, LoopFactory, run_on, until
from tests.strangers import Patient, Server, serving

GET = b"GET /x HTTP/1.1\r\n"
POST = b"POST /x HTTP/1.1\r\nhost: x\r\n"
GOOD = b"GET /good HTTP/1.1\r\nhost: x\r\n\r\n"
NEXT = b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
EMPTY = b"0\r\n\r\n"

HOSTS = {
    "none": b"",
    "two": b"host: x\r\nhost: y\r\n",
    "the same twice": b"host: x\r\nHost: x\r\n",
    "one with a user": b"host: me@x\r\n",
    "one with a path": b"host: x/y\r\n",
    "one with a blank": b"host: x y\r\n",
    "a list": b"host: x, y\r\n",
    "no port": b"host: x:http\r\n",
    "half an address": b"host: [::1\r\n",
}
CODINGS = {
    "gzip, chunked": 501,
    "gzip\r\ntransfer-encoding: chunked": 501,
    "deflate,gzip,chunked": 501,
    "chunked\r\ntransfer-encoding: chunked": 400,
    "chunked, chunked": 400,
    "chunked, gzip": 400,
    "gzip": 400,
    "identity": 400,
    ", chunked": 400,
    "chunked,": 400,
    "chunked;q=1": 400,
    '"chunked"': 400,
    "": 400,
}


class Hasty(Inbound):
    head_seconds = 0.2


async def refused(sent: bytes, served: Server, connect: Any) -> int:
    """The status of a refusal that hides nothing and ends the connection."""
    client = await connect()
    await client.send(sent)
    status, told = await client.answer()
    assert await client.closed()
    assert served.seen == [], sent
    await until(lambda: not served.state.tasks and not served.state.connections)
    assert told["error"]["code"] == "invalid_request"
    return int(status)


@ON_BOTH_LOOPS
def test_a_request_names_one_host(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with serving() as (served, connect):
            for name, hosts in HOSTS.items():
                assert await refused(GET + hosts + b"\r\n" + NEXT, served, connect) == 400, name

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_hosts_that_are_one_are_taken_and_an_older_client_needs_none(
    loop_factory: LoopFactory,
) -> None:
    async def story() -> None:
        async with serving() as (_, connect):
            client = await connect()
            for host in (b"", b"x", b"x:", b"x:8080", b"[::1]:80", b"127.0.0.1", b" a_b.c-d. "):
                await client.send(GET + b"host: " + host + b"\r\n\r\n")
                assert (await client.answer())[0] == 200
            for version in (b"1.0\r\n", b"1.0\r\nhost: x\r\n"):
                client = await connect()
                await client.send(b"GET /x HTTP/" + version + b"\r\n")
                assert (await client.answer())[0] == 200

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_no_coding_is_taken_for_plain_chunks(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with serving() as (served, connect):
            for codings, status in CODINGS.items():
                head = POST + b"transfer-encoding: " + codings.encode() + b"\r\n\r\n"
                assert await refused(head + EMPTY + NEXT, served, connect) == status, codings
            older = b"POST /x HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n"
            assert await refused(older + EMPTY + NEXT, served, connect) == 400
            for spelled in (b"Chunked", b" chunked ", b"CHUNKED"):
                client = await connect()
                await client.send(POST + b"transfer-encoding:" + spelled + b"\r\n\r\n" + EMPTY)
                assert (await client.answer())[0] == 200

    run_on(loop_factory, story())


BEHIND = {
    "no request": (b"\x16\x03\x01\x00\xa5\r\n\r\n", 400),
    "a head without a host": (GET + b"\r\n" + NEXT, 400),
    "a coding": (POST + b"transfer-encoding: gzip, chunked\r\n\r\n" + EMPTY + NEXT, 501),
    "two lengths": (POST + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab" + NEXT, 400),
    "a bad chunk": (POST + b"transfer-encoding: chunked\r\n\r\nxyz\r\n" + NEXT, 400),
    "a head without end": (GET + b"x: y\r\n" * 110, 431),
    "half a head": (GET, 408),
    "half a body": (POST + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\nz\r\n", 400),
}


@ON_BOTH_LOOPS
def test_what_is_bad_spoils_no_answer_to_what_came_before(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with serving(Hasty, served=(served := Patient())) as (_, connect):
            for (name, (bad, status)), good in itertools.product(BEHIND.items(), (1, 3)):
                for sent in ([GOOD * good + bad], [GOOD * good, bad]):
                    served.may.clear()
                    begun = served.begun
                    client = await connect()
                    await client.send(*sent)
                    await until(lambda begun=begun: served.begun == begun + 1)  # type: ignore[misc]
                    (line,) = served.state.connections
                    await until(lambda line=line: line._farewell is not None)  # type: ignore[misc]
                    await client.send(NEXT)
                    served.may.set()
                    said = (await client.reader.read()).split(b"HTTP/1.1 ")[1:]
                    told = [each[:3] for each in said]
                    assert told == [b"200"] * good + [b"%d" % status], name
                    assert all(each.endswith(b"/good") for each in said[:-1])
                    assert b"connection: close" in said[-1]
                    assert (served.begun - begun, served.gone) == (good, 0)
                    await until(lambda: not served.state.tasks and not served.state.connections)

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_who_leaves_after_something_bad_is_noticed_while_another_is_answered(
    loop_factory: LoopFactory,
) -> None:
    async def story() -> None:
        async with serving(served=(served := Patient())) as (_, connect):
            client = await connect()
            await client.send(GOOD + b"\x00\r\n\r\n")
            await until(lambda: served.begun == 1)
            client.writer.transport.abort()
            await until(lambda: served.gone == 1 and not served.state.tasks)

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_who_said_it_was_the_last_gets_nothing_after_its_answer(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        async with serving(served=(served := Patient())) as (_, connect):
            client = await connect()
            await client.send(GOOD[:-2] + b"connection: close\r\n\r\n" + b"\x00\r\n\r\n")
            await until(lambda: served.begun == 1)
            served.may.set()
            assert (await client.reader.read()).count(b"HTTP/1.1 ") == 1

    run_on(loop_factory, story())
