"""Looks at everything Meterhouse depends on: for each thing, what was found and what helps.

Nothing is changed. A check that fails is a finding, never an exception.
"""

import importlib.util
import json
import platform
import shutil
import socket
import stat
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy import inspect
from sqlalchemy.exc import SQLAlchemyError

from gateway import clock, secrets, standing
from gateway.descriptors import most_exchanges, raise_limit
from gateway.diagnosis_store import store
from gateway.finding import Finding
from gateway.program import typed
from gateway.settings import Settings, SettingsError, url_host
from gateway.stores.sql import configuration, engine
from gateway.stores.sql.rows import Configuration
from gateway.unpriced import REMEDY, unpriced
from policies.document import load

_LEAST_AT_ONCE: Final = 1_000
_LEAST_FREE_BYTES: Final = 1024**3
_CONNECT_SECONDS: Final = 2.0
_MOST_BYTES: Final = 1_000  # of an answer that somebody else may give
_HEALTHY: Final = {"status": "ok"}


def diagnose(settings: Settings, url: str = "") -> Iterator[Finding]:
    """One finding or more for each part, as they come in. `url`: of a gateway that is looked at in
    place of where this home's would be.
    """
    checks: tuple[tuple[str, Callable[[Settings], Iterator[Finding]]], ...] = (
        ("machine", machine),
        ("home", home),
        ("secrets", secret_files),
        ("listeners", lambda each: listeners(each, url)),
        ("store", store),
        ("database", database),
        ("telemetry", telemetry),
        ("extras", extras),
    )
    for part, check in checks:
        try:
            yield from check(settings)
        except Exception as error:  # noqa: BLE001 - a check that breaks is a finding as well
            yield Finding(part, "failed", f"{type(error).__name__}: {error}")


def machine(_: Settings) -> Iterator[Finding]:
    libc = " ".join(platform.libc_ver()) or "system libc"
    yield interpreter(str(sysconfig.get_config_var("CONFIG_ARGS") or ""), sys.base_prefix, libc)
    limit, at_once = raise_limit(), most_exchanges()
    found = f"{limit} open files: each data plane process serves up to {at_once} clients at once"
    if at_once < _LEAST_AT_ONCE:
        yield Finding("machine", "warning", found, "raise the hard limit (ulimit -Hn, LimitNOFILE)")
    else:
        yield Finding("machine", "ok", found)


def interpreter(built_with: str, prefix: str, libc: str) -> Finding:
    """What runs this. `built_with` are the words of its configuration; what distributions install
    below /usr is optimised, whether they say so there or not.
    """
    found = f"Python {platform.python_version()}, {sys.platform} {platform.machine()}, {libc}"
    if prefix == "/usr" or "--enable-optimizations" in built_with:
        return Finding("machine", "ok", found)
    remedy = (
        "one built with --enable-optimizations, as a distribution's is, takes a tenth less for a"
        " request and a third less for plain Python"
    )
    return Finding("machine", "ok", f"{found}, built without optimisations", remedy)


def home(settings: Settings) -> Iterator[Finding]:
    if not settings.home.is_dir():
        yield Finding("home", "ok", f"{settings.home} will be made by the first start")
        return
    free = shutil.disk_usage(settings.home).free
    found = f"{settings.home}, {free // 1024**2} MiB free"
    if free < _LEAST_FREE_BYTES:
        yield Finding("home", "warning", found, "make room: the spools and the ledger live there")
    else:
        yield Finding("home", "ok", found)


def secret_files(settings: Settings) -> Iterator[Finding]:
    names = (secrets.ADMIN_TOKEN_FILE, secrets.SECRET_KEY_FILE, secrets.KEY_PEPPER_FILE)
    paths = [settings.home / name for name in names if (settings.home / name).exists()]
    for path in paths:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            remedy = f"chmod 600 {path}"
            yield Finding("secrets", "warning", f"{path} is readable by others", remedy)
    try:
        missing = secrets.check(settings)
    except SettingsError as error:
        yield Finding("secrets", "failed", str(error))
        return
    if missing:
        yield Finding("secrets", "ok", "what is missing will be made by the first start")
    else:
        yield Finding("secrets", "ok", "admin token, sealing key and key peppers can be used")


def listeners(settings: Settings, url: str = "") -> Iterator[Finding]:
    """Where the gateway that runs was started: as told, or as `up` wrote it down; else where one
    would be.
    """
    if url:
        yield _told_of(url)
        return
    written = _endpoints(settings)
    places = [each for each in (written.get("gateway"), written.get("admin")) if each]
    if places and any(map(_answers, places)):
        for place in places:
            yield _written_down(place)
        return
    for place in places:
        found = f"{place} was written down by the last `up` of this home, and does not answer"
        yield Finding("listeners", "warning", found, f"start it again with {typed('up')}")
    for host, port, variable in (
        (settings.host, settings.port, "METERHOUSE_PORT"),
        (settings.admin_host, settings.admin_port, "METERHOUSE_ADMIN_LISTEN"),
    ):
        place = f"{host}:{port}"
        if not port or not _accepts(host, port):
            yield Finding("listeners", "ok", f"{place} is free")
        elif _answers(f"http://{url_host(host)}:{port}"):
            yield Finding("listeners", "ok", f"{place} answers as a gateway does")
        else:
            yield Finding("listeners", "failed", f"{place} is taken", f"choose with {variable}")


def _told_of(url: str) -> Finding:
    if _answers(url):
        return Finding("listeners", "ok", f"{url} answers as a gateway does")
    remedy = f"look at its log; {typed('up')} prints where it listens"
    return Finding("listeners", "failed", f"{url} does not answer as a gateway does", remedy)


def _written_down(url: str) -> Finding:
    if _answers(url):
        return Finding("listeners", "ok", f"{url} answers; this home is up")
    found = f"{url} does not answer, though this home is up"
    return Finding("listeners", "failed", found, "look at its log in the logs of this home")


def _answers(url: str) -> bool:
    """Whether a gateway's listener says there that it turns."""
    parts = urlsplit(url)
    if not parts.hostname:
        return False
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    try:
        asked = kind(_near(parts.hostname), parts.port, timeout=_CONNECT_SECONDS)
        with closing(asked):
            asked.request("GET", f"{parts.path.rstrip('/')}/healthz")
            answer = asked.getresponse()
            return (answer.status, json.loads(answer.read(_MOST_BYTES))) == (200, _HEALTHY)
    except (OSError, HTTPException, ValueError):
        return False


def database(settings: Settings) -> Iterator[Finding]:
    sqlite = settings.database_url.removeprefix("sqlite:///")
    if sqlite != settings.database_url and not Path(sqlite).exists():
        yield Finding("database", "ok", f"SQLite at {sqlite}, made by the first start")
        return
    opened = engine.open_engine(settings.database_url)
    try:
        if not inspect(opened).has_table("config_state"):
            yield Finding("database", "warning", "reachable, empty", f"run {typed('migrate')}")
            return
        now = configuration.load(opened)
        yield Finding("database", "ok", f"{opened.dialect.name}, revision {now.revision}")
        yield from _residency(settings, now)
        yield from _prices(now)
        for backend in now.backends:
            yield _backend(backend.name, backend.base_url)
    except SQLAlchemyError as error:
        reason = str(error).partition("\n")[0]
        yield Finding("database", "failed", reason, "check METERHOUSE_DATABASE_URL")
    finally:
        opened.dispose()


def _residency(settings: Settings, now: Configuration) -> Iterator[Finding]:
    stands_in = settings.jurisdictions or _running_in(settings)
    tenants = {tenant.id: tenant.name for tenant in now.tenants}
    for policy in now.policies:
        warned = standing.warning(load(policy.document).residency, stands_in)
        if warned is not None:
            found = f"policy {tenants[policy.tenant_id]} {policy.name}: {warned}"
            remedy = f"start the gateway with {standing.VARIABLE}= the country it stands in"
            yield Finding("residency", "warning", found, remedy)


def _prices(now: Configuration) -> Iterator[Finding]:
    for route in unpriced(now, clock.now_us()):
        yield Finding("prices", "warning", route.words(), REMEDY)


def _running_in(settings: Settings) -> frozenset[str]:
    """Where the gateway of this home says that it stands, while it runs."""
    found = _endpoints(settings).get("jurisdictions", ())
    return frozenset(found if isinstance(found, list) else ())


def _endpoints(settings: Settings) -> Mapping[str, Any]:
    """As the `up` of this home wrote them down; nothing where it wrote none."""
    try:
        found = json.loads((settings.run_dir / "endpoints.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _backend(name: str, base_url: str) -> Finding:
    url = urlsplit(base_url)
    port = url.port or (443 if url.scheme == "https" else 80)
    if _accepts(url.hostname or "", port):
        return Finding("backends", "ok", f"{name} accepts connections at {base_url}")
    remedy = "start it, or mend base_url through the admin API"
    return Finding("backends", "warning", f"{name} does not answer at {base_url}", remedy)


def telemetry(settings: Settings) -> Iterator[Finding]:
    if not settings.otlp_endpoint:
        yield Finding("telemetry", "ok", "/metrics only; OTEL_EXPORTER_OTLP_ENDPOINT is not set")
        return
    url = urlsplit(settings.otlp_endpoint)
    if _accepts(url.hostname or "", url.port or (443 if url.scheme == "https" else 80)):
        yield Finding("telemetry", "ok", f"{settings.otlp_endpoint} accepts connections")
    else:
        found = f"nothing answers at {settings.otlp_endpoint}"
        yield Finding("telemetry", "warning", found, "requests go on; spans are dropped")


def extras(_: Settings) -> Iterator[Finding]:
    if importlib.util.find_spec("genai_prices") is None:
        remedy = "pip install 'meterhouse[catalogue]'"
        yield Finding("extras", "ok", "no price catalogue: prices are set by hand", remedy)
    else:
        yield Finding("extras", "ok", "price catalogue installed")


def _accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((_near(host), port), timeout=_CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def _near(host: str) -> str:
    """Where what listens on every address is asked."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - not bound
