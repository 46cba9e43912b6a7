import socket

import pytest

from gateway.listeners import UNSENT_BYTES, bind
from gateway.settings import StartError


def test_a_listener_queues_clients_before_anyone_accepts() -> None:
    with (
        bind("127.0.0.1", 0, "PORT") as listener,
        socket.create_connection(listener.getsockname(), timeout=60) as client,
    ):
        accepted, address = listener.accept()
        accepted.close()

        assert address == client.getsockname()


@pytest.mark.skipif(
    not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="this kernel has no such option"
)
def test_the_kernel_keeps_little_for_a_client_that_does_not_read() -> None:
    with (
        bind("127.0.0.1", 0, "PORT") as listener,
        socket.create_connection(listener.getsockname(), timeout=60),
    ):
        accepted, _ = listener.accept()
        with accepted:
            kept = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)

            assert kept == UNSENT_BYTES


def test_a_taken_port_is_refused_with_the_setting_that_helps() -> None:
    with bind("127.0.0.1", 0, "PORT") as listener:
        port = listener.getsockname()[1]

        with pytest.raises(StartError, match=rf"127\.0\.0\.1:{port} .*taken.*METERHOUSE_PORT"):
            bind("127.0.0.1", port, "PORT")


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(StartError, match="METERHOUSE_ADMIN_LISTEN"):
        bind("192.0.2.1", 0, "ADMIN_LISTEN")
