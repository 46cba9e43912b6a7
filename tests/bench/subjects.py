"""Who is measured: started on their own, ended by whoever started them."""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from tests.bench import machine

PATH: Final = "/v1/chat/completions"
_NGINX: Final = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log crit;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_buffer_size 4m; client_max_body_size 64m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 1000000000;
  upstream backend {{ server 127.0.0.1:{backend}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024; tcp_nodelay on;
    location / {{
      proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


class Subject(msgspec.Struct, frozen=True):
    """A server to send the bench's requests to. `pids` are the processes whose CPU time counts."""

    name: str
    port: int
    pids: tuple[int, ...]
    headers: dict[str, str] = {}
    helpers: tuple[int, ...] = ()  # processes it needs that are not measured


@contextmanager
def backend() -> Iterator[Subject]:
    with _printing_its_port("direct", "tests.bench.backend") as subject:
        yield subject


@contextmanager
def pass_through(backend_port: int) -> Iterator[Subject]:
    with _printing_its_port(
        "pass-through", "tests.bench.passthrough", str(backend_port)
    ) as subject:
        yield subject


@contextmanager
def nginx(backend_port: int) -> Iterator[Subject | None]:
    """None where nginx is not installed."""
    binary = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/bin") or (
        shutil.which("nginx")
    )
    if binary is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="mh-bench-") as folder:
        port = free_port()
        configuration = Path(folder) / "nginx.conf"
        configuration.write_text(_NGINX.format(folder=folder, port=port, backend=backend_port))
        arguments = [binary, "-p", folder, "-c", str(configuration)]
        with subprocess.Popen(arguments, stderr=subprocess.DEVNULL) as process:
            try:
                wait_for(port)
                wait_for(port)
                yield Subject("nginx", port, _with_worker(process.pid))
            finally:
                process.terminate()


def _with_worker(master: int) -> tuple[int, ...]:
    """nginx listens before it has its worker, and only the worker does the work."""
    deadline = time.monotonic() + 5
    while len(pids := machine.family(master)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    return tuple(pids)


def wait_for(port: int, within_s: float = 60) -> None:
    """Until somebody listens."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def _printing_its_port(name: str, module: str, *arguments: str) -> Iterator[Subject]:
    """A process of ours that prints its port, and ends when its standard input does."""
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            if process.stdout is None or not (line := process.stdout.readline()):
                raise RuntimeError(f"{module} did not start")
            yield Subject(name, int(line), (process.pid,))
        finally:
            process.terminate()
