"""The types that bodies are made of, bounded, and the checks that a type cannot express."""

import ipaddress
import re
from collections.abc import Callable
from functools import cache
from typing import Annotated, Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

import msgspec
from msgspec import Meta

from billing import money
from gateway import clock
from gateway.admin.problems import invalid
from gateway.backends import addresses


def _rule(words: str) -> dict[str, str]:
    """What `gateway.admin.forms` says when a value does not fit."""
    return {"rule": words}


_INNER: Final = r"^\S([^\x00-\x1f\x7f]*\S)?$"
Name = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=128,
        pattern=_INNER,
        extra=_rule("a name of 1 to 128 characters without spaces around it"),
    ),
]
Label = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        pattern=_INNER,
        extra=_rule("text of 1 to 64 characters without spaces around it"),
    ),
]
ModelName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=128,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$",
        extra=_rule("a model's name of at most 128 letters, digits and . _ : / @ + -"),
    ),
]
Slug = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        extra=_rule("a word of at most 64 letters, digits and . _ -"),
    ),
]
Id = Annotated[
    str,
    Meta(max_length=40, pattern=r"^[a-z]+_[0-9a-z]{26}$", extra=_rule("an id such as {noun}_...")),
]
Currency = Annotated[
    str,
    Meta(pattern=r"^[A-Z]{3}$", description="ISO 4217", extra=_rule("a currency code such as EUR")),
]
Decimal = Annotated[
    str,
    Meta(
        max_length=30,
        pattern=r"^[0-9]{1,15}(\.[0-9]{1,12})?$",
        description="an exact decimal without exponent",
        extra=_rule('an exact amount such as "12.50"'),
    ),
]
Instant = Annotated[
    str,
    Meta(
        max_length=40,
        description="RFC 3339 with an offset or Z",
        extra_json_schema={"format": "date-time"},
        extra=_rule("a time such as 2026-11-01T00:00:00Z"),
    ),
]

_RFC3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_NUMERIC_LABEL: Final = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")
_LATEST_US: Final = 253_402_300_799_000_000  # the year 9999


class Scope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What something is attached to: exactly one of the three."""

    tenant: Id | None = None
    team: Id | None = None
    key: Id | None = None

    def named(self, field: str = "scope") -> tuple[str, str]:
        """(kind, id). 422 unless exactly one is set."""
        given = [(kind, getattr(self, kind)) for kind in ("tenant", "team", "key")]
        given = [(kind, value) for kind, value in given if value is not None]
        if len(given) != 1:
            raise invalid(field, "name exactly one of tenant, team or key")
        return given[0]


def scope_of(kind: str, scope_id: str) -> Scope:
    return Scope(**{kind: scope_id})


def instant(text: str, field: str) -> int:
    """Microseconds UTC. 422 unless it is RFC 3339 with an offset."""
    if _RFC3339.fullmatch(text) is None:
        raise invalid(field, f"{text!r} is not RFC 3339", "write it as 2026-11-01T00:00:00Z")
    try:
        at_us = clock.parse_rfc3339(text.upper().replace(" ", "T"))
    except (ValueError, OverflowError) as fault:
        raise invalid(field, str(fault), "write it as 2026-11-01T00:00:00Z") from None
    if not 0 <= at_us <= _LATEST_US:
        raise invalid(field, f"{text!r} is not between the years 1970 and 9999")
    return at_us


def shown_instant(at_us: int | None) -> str | None:
    return None if at_us is None else clock.rfc3339(at_us)


def currency(code: str, field: str = "currency") -> str:
    checked(field, money.minor_exponent, code)
    return code


def timezone(name: str, field: str = "timezone") -> str:
    """422 unless the IANA database that billing uses has the zone."""
    if name not in _zones():
        raise invalid(field, f"{name!r} is not an IANA time zone", "such as Europe/Berlin or UTC")
    ZoneInfo(name)
    return name


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones() - {"Factory", "localtime", "posixrules"})


def network(text: str, field: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as fault:
        raise invalid(field, str(fault), "such as 10.0.0.0/8 or 2001:db8::/32") from None


def base_url(text: str, field: str = "base_url") -> str:
    """http(s), a host that content may be sent to, no credentials, query or fragment.

    What `gateway.backends.addresses` refuses is refused in every spelling; what a name resolves to
    is checked when it is connected to.
    """
    fault = _url_fault(text)
    if fault is not None:
        raise invalid(field, fault, "such as https://inference.example.com/v1")
    return text.rstrip("/")


def _url_fault(text: str) -> str | None:
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        return "this is not a URL"
    if url.scheme not in {"http", "https"}:
        return "the scheme must be http or https"
    if "@" in url.netloc or url.username is not None:
        return "credentials do not belong in the URL; send them as `credential`"
    if "?" in text or "#" in text:
        return "a base URL has no query and no fragment"
    if not text.isascii() or any(character in text for character in " \\<>\"'{}|^`%"):
        return "the URL has characters that are not allowed"
    if port == 0 or url.netloc.endswith(":"):
        return "the port must be between 1 and 65535"
    return _host_fault(url.hostname or "", bracketed="[" in url.netloc)


def _host_fault(host: str, *, bracketed: bool) -> str | None:
    if not host:
        return "the URL has no host"
    if bracketed or _NUMERIC_LABEL.fullmatch(host.rstrip(".").rpartition(".")[2]):
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return f"{host!r} is not an IP address in its usual spelling"
        return None if addresses.acceptable(str(address)) else f"no backend may be at {host}"
    if len(host) > 253 or ".." in host or _HOST.fullmatch(host) is None:
        return f"{host!r:.80} is not a host name"
    return f"no backend may be at {host}" if addresses.leads_astray(host) else None


def checked(field: str, check: Callable[..., object], *values: object) -> None:
    """422 with the reason when a check of the libraries refuses the values with ValueError."""
    try:
        check(*values)
    except ValueError as fault:
        raise invalid(field, str(fault)) from None


def distinct(values: tuple[str, ...] | None, field: str) -> tuple[str, ...] | None:
    if values is not None and len(set(values)) != len(values):
        raise invalid(field, "a value is given twice")
    return values
