"""Whom of its own users an app says that a request is for, in any of the fields that APIs have for
it. What the backend gets of them is what the app sent.
"""

import logging
from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from gateway.dataplane.envelope import Fields
from gateway.dataplane.reach import Unseal
from gateway.pseudonyms import Pseudonyms
from gateway.stores.sql import rows

_LOG: Final = logging.getLogger(__name__)
_NAMES: Final = ("safety_identifier", "user")  # OpenAI's, the newer one first
_METADATA: Final = "metadata"  # Anthropic's `metadata.user_id`
_MOST_BYTES: Final = 16 * 1024  # of one field: what is longer is not looked at


class _Metadata(msgspec.Struct, frozen=True):
    user_id: str | None = None


_TEXT: Final = msgspec.json.Decoder(str)
_METADATA_OF: Final = msgspec.json.Decoder(_Metadata)


class EndUsers:
    """Of a tenant that keeps who they are, as pseudonyms."""

    __slots__ = ("_pseudonyms",)

    def __init__(self, pseudonyms: Pseudonyms) -> None:
        self._pseudonyms = pseudonyms

    def of(self, fields: Fields) -> str | None:
        """The pseudonym; None where the request names nobody."""
        name = name_of(fields)
        return None if name is None else self._pseudonyms.of(name)


def name_of(fields: Fields) -> str | None:
    """The first name that is given; what is no text names nobody."""
    for field in _NAMES:
        if (raw := fields.get(field)) is not None and (name := _decoded(_TEXT, raw)):
            return name
    if (raw := fields.get(_METADATA)) is not None:
        found = _decoded(_METADATA_OF, raw)
        return None if found is None else found.user_id or None
    return None


_T = TypeVar("_T")


def _decoded(decoder: msgspec.json.Decoder[_T], raw: msgspec.Raw) -> _T | None:
    if len(memoryview(raw)) > _MOST_BYTES:
        return None
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def by_tenant(config: rows.Configuration, unseal: Unseal) -> Mapping[str, EndUsers]:
    """Of the tenants that keep any. A key that does not open keeps nobody's name."""
    found = {}
    keeping = {tenant.id for tenant in config.tenants if tenant.end_users == "pseudonym"}
    for key in config.pseudonym_keys:
        if key.tenant_id in keeping and (text := unseal(key)) is not None:
            try:
                found[key.tenant_id] = EndUsers(Pseudonyms.opened(key.key_version, text))
            except ValueError as fault:
                _LOG.error("no end users of %s are kept: %s", key.tenant_id, fault)
    return found
