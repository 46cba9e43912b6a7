"""One frozen Struct from METERHOUSE_* and OTEL_*. A misspelt variable stops the start."""

import difflib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Self

import msgspec

from policies import residency

PREFIX: Final = "METERHOUSE_"
_READING: Final = 256 * 1024 * 1024
_MOST_SOCKET_BYTES: Final = 100  # sun_path holds 108 on Linux and 104 on macOS
_SECRET: Final = frozenset({"admin_token", "secret_key", "key_pepper"})


class SettingsError(ValueError):
    """A variable that cannot be used; the message names it and says what would do."""


class StartError(RuntimeError):
    """What was asked for cannot run on this machine as it stands; the message says what helps."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator decided. Paths are absolute; both store URLs are ready to be opened.

    `admin_token`, `secret_key` and `key_pepper` are only what the environment carried (empty: the
    file under home counts): `gateway.secrets.load` answers the values in force.
    """

    home: Path
    host: str = "127.0.0.1"
    port: int = 8080  # 0: any free one
    admin_host: str = "127.0.0.1"
    admin_port: int = 8081
    admin_url: str = ""  # where the commands find the admin API; empty: see `find_admin_url`
    workers: int = 1
    redis_url: str = ""
    redis_embedded: bool = True  # `up` starts a store of its own behind `redis_url`
    database_url: str = ""
    admin_token: str = ""
    secret_key: str = ""
    key_pepper: str = ""
    jurisdictions: frozenset[str] = frozenset()  # every law that reaches this gateway
    drain_seconds: int = 60
    max_body_bytes: int = 32 * 1024 * 1024
    reading_bytes: int = _READING  # of bodies on their way, in each worker
    hold_seconds: int = 30  # a hold's life after its worker last said that it is at work
    store_timeout_ms: int = 1_000  # how long an admission waits for the quota store
    ledger_away_seconds: int = 86_400  # how long usage may wait for the ledger, and how much of it
    journal_bytes: int = 1024 * 1024 * 1024  # may wait in each shard, before nothing is served
    idempotency_seconds: int = 86_400  # how long an idempotency key is remembered
    idempotency_keys: int = 100_000  # so many at a time for each application key
    stored_answer_bytes: int = 64 * 1024 * 1024  # all that policies keep of answers, in each shard
    limits_in_outage: str = "open"  # per-minute limits while the quota store is away: open | strict
    disconnect_drain_seconds: int = 60  # how long a backend with `on_disconnect: drain` is heard
    lease_seconds: int = 300  # how long a worker may spend from leases without the store; 0: not
    decision_days: int = 400  # how long records of decisions are kept; 0: for ever
    alert_days: int = 400  # how long alerts and blocks of keys are kept; 0: for ever
    engine_metrics: str = "on"  # whether engines of one's own are asked for their load: on | off
    tenants_see_cost: str = "off"  # whether tenants see what backends cost the operator: on | off
    queue_seconds: int = 30  # how long a request waits for a backend that is full
    queue_length: int = 1_000  # how many may wait for one backend in each worker
    shadow_requests: int = 16  # that each worker sends a second time at once; 0: none
    access_log: str = "file"  # file ($HOME/log/access.jsonl) | stdout | off
    otlp_endpoint: str = ""
    otel_service_name: str = "meterhouse"
    otel_traces_sampler: str = "parentbased_traceidratio"
    otel_traces_sampler_arg: str = "0.1"

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """SettingsError for an unknown variable or a value that cannot be meant."""
        ours = _known(environ)
        home = Path(ours.get("HOME", "") or ".meterhouse").expanduser().absolute()
        host, port = ours.get("HOST", "") or "127.0.0.1", _integer(ours, "PORT", 8080, 0, 65_535)
        admin_host, admin_port = _listen(ours, port)
        redis_url = ours.get("REDIS_URL", "")
        max_body = _integer(ours, "MAX_BODY_BYTES", 32 * 1024 * 1024, 1024, 2**31 - 1)
        return cls(
            home=home,
            host=host,
            port=port,
            admin_host=admin_host,
            admin_port=admin_port,
            admin_url=ours.get("ADMIN_URL", "").rstrip("/"),
            workers=_integer(ours, "WORKERS", _default_workers(), 1, 256),
            redis_url=redis_url or f"unix://{socket_path(home)}",
            redis_embedded=not redis_url,
            database_url=ours.get("DATABASE_URL", "") or f"sqlite:///{home / 'meterhouse.db'}",
            admin_token=ours.get("ADMIN_TOKEN", ""),
            secret_key=ours.get("SECRET_KEY", ""),
            key_pepper=ours.get("KEY_PEPPER", ""),
            jurisdictions=_jurisdictions(ours.get("JURISDICTION", "")),
            drain_seconds=_integer(ours, "DRAIN_SECONDS", 60, 0, 86_400),
            max_body_bytes=max_body,
            reading_bytes=_integer(ours, "READING_BYTES", max(_READING, max_body), max_body, 2**40),
            hold_seconds=_integer(ours, "HOLD_SECONDS", 30, 1, 3_600),
            store_timeout_ms=_integer(ours, "STORE_TIMEOUT_MS", 1_000, 10, 60_000),
            ledger_away_seconds=_integer(ours, "LEDGER_AWAY_SECONDS", 86_400, 1, 2_592_000),
            journal_bytes=_integer(ours, "JOURNAL_BYTES", 1024 * 1024 * 1024, 1024, 2**40),
            idempotency_seconds=_integer(ours, "IDEMPOTENCY_SECONDS", 86_400, 60, 604_800),
            idempotency_keys=_integer(ours, "IDEMPOTENCY_KEYS", 100_000, 1, 10_000_000),
            stored_answer_bytes=_integer(ours, "STORED_ANSWER_BYTES", 64 * 1024 * 1024, 0, 2**36),
            limits_in_outage=_choice(ours, "LIMITS_IN_OUTAGE", ("open", "strict")),
            disconnect_drain_seconds=_integer(ours, "DISCONNECT_DRAIN_SECONDS", 60, 0, 3_600),
            lease_seconds=_integer(ours, "LEASE_SECONDS", 300, 0, 86_400),
            decision_days=_integer(ours, "DECISION_DAYS", 400, 0, 36_500),
            alert_days=_integer(ours, "ALERT_DAYS", 400, 0, 36_500),
            engine_metrics=_choice(ours, "ENGINE_METRICS", ("on", "off")),
            tenants_see_cost=_choice(ours, "TENANTS_SEE_COST", ("off", "on")),
            queue_seconds=_integer(ours, "QUEUE_SECONDS", 30, 0, 600),
            queue_length=_integer(ours, "QUEUE_LENGTH", 1_000, 0, 100_000),
            shadow_requests=_integer(ours, "SHADOW_REQUESTS", 16, 0, 10_000),
            access_log=_choice(ours, "ACCESS_LOG", ("file", "stdout", "off")),
            otlp_endpoint=environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
            otel_service_name=environ.get("OTEL_SERVICE_NAME", "") or "meterhouse",
            otel_traces_sampler=environ.get("OTEL_TRACES_SAMPLER", "")
            or "parentbased_traceidratio",
            otel_traces_sampler_arg=environ.get("OTEL_TRACES_SAMPLER_ARG", "") or "0.1",
        )

    @property
    def run_dir(self) -> Path:
        """Pid files, metric snapshots, endpoints: worthless once every process is gone."""
        return self.home / "run"

    @property
    def log_dir(self) -> Path:
        return self.home / "log"

    @property
    def spool_dir(self) -> Path:
        return self.home / "spool"

    @property
    def store_dir(self) -> Path:
        """Where the embedded store keeps its append-only file."""
        return self.home / "store"

    def find_admin_url(self) -> str:
        """The admin API without a trailing slash: as told, else as the running `up` of this home
        wrote it down, else as it would listen.
        """
        if self.admin_url:
            return self.admin_url
        try:
            return str(json.loads((self.run_dir / "endpoints.json").read_bytes())["admin"])
        except (OSError, ValueError, KeyError, TypeError):
            return f"http://{url_host(self.admin_host)}:{self.admin_port}"

    def __repr__(self) -> str:
        shown = (
            f"{name}={'***' if name in _SECRET and getattr(self, name) else getattr(self, name)!r}"
            for name in self.__struct_fields__
            if name not in {"redis_url", "database_url"}  # these may carry passwords
        )
        return f"Settings({', '.join(shown)})"


def socket_path(home: Path) -> Path:
    """The embedded store's socket: under home where the kernel's bound on its length allows it,
    else under the temporary directory, by a name that every process of this home works out alike.
    """
    under_home = home / "run" / "store.sock"
    if len(os.fsencode(under_home)) <= _MOST_SOCKET_BYTES:
        return under_home
    mark = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"meterhouse-{os.getuid()}-{mark}" / "store.sock"


def url_host(host: str) -> str:
    """How a listen address is written in a URL that a client on this machine can use."""
    if host in {"", "0.0.0.0"}:  # noqa: S104 - compared, never bound
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host


_VARIABLES: Final = (
    "HOME", "HOST", "PORT", "ADMIN_LISTEN", "ADMIN_URL", "WORKERS", "REDIS_URL", "DATABASE_URL",
    "ADMIN_TOKEN", "SECRET_KEY", "KEY_PEPPER", "JURISDICTION", "DRAIN_SECONDS", "MAX_BODY_BYTES",
    "READING_BYTES", "HOLD_SECONDS", "STORE_TIMEOUT_MS", "LEDGER_AWAY_SECONDS", "JOURNAL_BYTES",
    "IDEMPOTENCY_SECONDS", "IDEMPOTENCY_KEYS", "STORED_ANSWER_BYTES", "LIMITS_IN_OUTAGE",
    "DISCONNECT_DRAIN_SECONDS", "LEASE_SECONDS", "QUEUE_SECONDS", "QUEUE_LENGTH", "DECISION_DAYS",
    "ALERT_DAYS", "SHADOW_REQUESTS", "ENGINE_METRICS", "TENANTS_SEE_COST", "ACCESS_LOG",
)  # fmt: skip


def _known(environ: Mapping[str, str]) -> dict[str, str]:
    ours = {k.removeprefix(PREFIX): v.strip() for k, v in environ.items() if k.startswith(PREFIX)}
    unknown = sorted(set(ours) - set(_VARIABLES))
    if not unknown:
        return ours
    hints = []
    for name in unknown:
        near = difflib.get_close_matches(name, _VARIABLES, n=1)
        hints.append(f"{PREFIX}{name}" + (f" (did you mean {PREFIX}{near[0]}?)" if near else ""))
    raise SettingsError(
        f"unknown setting {', '.join(hints)}; deploy/meterhouse.env.example lists them all"
    )


def _integer(ours: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = ours.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise SettingsError(
            f"{PREFIX}{name}={text!r} must be a whole number from {least} to {most}"
        )
    return int(text)


def _choice(ours: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str:
    text = ours.get(name, "") or allowed[0]
    if text not in allowed:
        raise SettingsError(f"{PREFIX}{name}={text!r} must be one of {', '.join(allowed)}")
    return text


def _listen(ours: Mapping[str, str], port: int) -> tuple[str, int]:
    """`host:port` or `[v6]:port`; by default loopback and the data port plus one."""
    text = ours.get("ADMIN_LISTEN", "")
    if not text:
        if port == 65_535:
            raise SettingsError(f"{PREFIX}PORT=65535 leaves no port for {PREFIX}ADMIN_LISTEN")
        return "127.0.0.1", port + 1 if port else 0
    host, colon, number = text.rpartition(":")
    if not colon or not number.isdigit() or int(number) > 65_535:
        raise SettingsError(f"{PREFIX}ADMIN_LISTEN={text!r} must look like 127.0.0.1:8081")
    return host.strip("[]") or "127.0.0.1", int(number)


def _jurisdictions(text: str) -> frozenset[str]:
    """By the judge of backends and policies: no policy could permit another name."""
    written = [name.strip() for name in text.split(",") if name.strip()]
    odd = [str(residency.fault(name)) for name in written if residency.fault(name.upper())]
    if odd:
        raise SettingsError(
            f"{PREFIX}JURISDICTION: {'; '.join(odd)}; write country codes, such as DE or DE,US"
        )
    return frozenset(name.upper() for name in written)


def _default_workers() -> int:
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else (os.cpu_count() or 1)
    return max(1, min(cores, 8))
