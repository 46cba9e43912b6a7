"""Where the transport refuses to go, whatever the name: checked when it connects."""

import pytest

from gateway.backends.transport import ConnectFailed, Endpoint, PoolStats, Transport
from tests.loops import ON_BOTH_LOOPS, LoopFactory, run_on
from tests.scripted_backend import ScriptedBackend
from tests.transport_pair import JSON, LIMIT_BYTES, PATIENT, chat


@ON_BOTH_LOOPS
@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "2852039166",  # the resolver's spellings of the same address
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "[::ffff:169.254.169.254]",
        "[fe80::1]",
        "0.0.0.0",
        "0",
        "[::]",
        "224.0.0.1",
    ],
)
def test_no_connection_is_made_to_an_address_no_backend_lives_at(
    loop_factory: LoopFactory, host: str
) -> None:
    async def story() -> None:
        async with ScriptedBackend() as backend:
            target = Endpoint.parse(f"http://{host}:{backend.port}/v1")
            transport = Transport()
            with pytest.raises(ConnectFailed, match="where no backend may be") as refused:
                await transport.request(target, "/models", JSON, chat(), PATIENT)
            assert not refused.value.sent
            assert transport.stats(target) == PoolStats(0, 0, 0)
            assert backend.accepted == 0
            await transport.close()

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_a_name_is_resolved_and_the_next_address_tried_where_the_first_does_not_answer(
    loop_factory: LoopFactory,
) -> None:
    async def story() -> None:
        async with ScriptedBackend() as backend:
            target = Endpoint.parse(f"http://localhost:{backend.port}/v1")  # ::1 may come first
            transport = Transport()
            answer = await transport.request(target, "/chat/completions", JSON, chat(), PATIENT)
            assert answer.status == 200
            await answer.read(LIMIT_BYTES)
            assert backend.book[0].headers["host"] == f"localhost:{backend.port}"
            await transport.close()

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_a_name_that_does_not_resolve_is_a_failure_to_connect(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        target = Endpoint.parse("http://nowhere.invalid/v1")
        transport = Transport()
        with pytest.raises(ConnectFailed) as refused:
            await transport.request(target, "/chat/completions", JSON, chat(), PATIENT)
        assert not refused.value.sent
        await transport.close()

    run_on(loop_factory, story())
