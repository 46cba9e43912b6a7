"""The three secrets of a home: admin token, sealing key, key peppers. Made once, kept at mode 0600.

A value in the environment wins over its file and is never written down. Secrets reach child
processes through these files or the inherited environment, never through an argument vector.
"""

import base64
import binascii
import os
import secrets as entropy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from gateway.settings import PREFIX, Settings, SettingsError

ADMIN_TOKEN_FILE: Final = "admin-token"  # noqa: S105 - a file name
SECRET_KEY_FILE: Final = "secret-key"  # noqa: S105 - a file name
KEY_PEPPER_FILE: Final = "key-pepper"
_LEAST_TOKEN: Final = 16
_KEY_BYTES: Final = 32


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    """Secrets in force. `peppers` by version; new digests take `pepper_version`, the highest."""

    admin_token: str
    secret_key: bytes  # 32 bytes, AES-256
    peppers: Mapping[int, bytes]  # at least 32 bytes each
    pepper_version: int

    @property
    def pepper(self) -> bytes:
        return self.peppers[self.pepper_version]

    def __repr__(self) -> str:
        return f"Secrets(pepper_version={self.pepper_version}, ***)"


def load(settings: Settings) -> Secrets:
    """The secrets of this home; what is missing is made. SettingsError for one of no use."""
    home = settings.home
    token = settings.admin_token or _file(home / ADMIN_TOKEN_FILE, _new_token)
    _check_token(token)
    key = settings.secret_key or _file(home / SECRET_KEY_FILE, _new_key)
    pepper = settings.key_pepper or _file(home / KEY_PEPPER_FILE, lambda: f"1:{_new_key()}")
    peppers = _peppers(pepper)
    return Secrets(
        admin_token=token,
        secret_key=_key(key),
        peppers=peppers,
        pepper_version=max(peppers),
    )


def check(settings: Settings) -> bool:
    """Whether any is missing that `load` would make; nothing is. SettingsError as there, also for
    one beside those that are missing.
    """
    home = settings.home
    found: tuple[tuple[str, Path, Callable[[str], object]], ...] = (
        (settings.admin_token, home / ADMIN_TOKEN_FILE, _check_token),
        (settings.key_pepper, home / KEY_PEPPER_FILE, _peppers),
        (settings.secret_key, home / SECRET_KEY_FILE, _key),
    )
    missing = False
    for given, path, judge in found:
        if given or path.exists():
            judge(given or _text(path))
        else:
            missing = True
    return missing


def admin_token_path(settings: Settings) -> Path:
    return settings.home / ADMIN_TOKEN_FILE


def make_private(directory: Path) -> None:
    """The directory, readable by its owner alone. Parents that exist keep their mode."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def write_private(path: Path, text: str) -> None:
    """The file whole or not at all, mode 0600 from its first byte; an older one is replaced."""
    make_private(path.parent)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{entropy.token_hex(4)}")
    _write_new(fresh, text)
    fresh.replace(path)


def _write_new(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _file(path: Path, make: Callable[[], str]) -> str:
    """The file's text, stripped. Of two processes that find none, one's value wins for both."""
    if not path.exists():
        make_private(path.parent)
        fresh = path.with_name(f".{path.name}.{os.getpid()}.{entropy.token_hex(4)}")
        _write_new(fresh, make() + "\n")
        try:
            path.hardlink_to(fresh)  # fails where another process was first
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return _text(path)


def _text(path: Path) -> str:
    text = path.read_text(encoding="ascii").strip()
    if not text:
        raise SettingsError(f"{path} is empty; restore it from a copy, its loss cannot be mended")
    return text


def _new_token() -> str:
    return f"mha_{entropy.token_urlsafe(32)}"


def _new_key() -> str:
    return base64.b64encode(entropy.token_bytes(_KEY_BYTES)).decode("ascii")


def _check_token(token: str) -> None:
    if len(token) < _LEAST_TOKEN or not token.isascii() or any(c.isspace() for c in token):
        raise SettingsError(
            f"{PREFIX}ADMIN_TOKEN needs at least {_LEAST_TOKEN} ASCII characters without spaces"
        )


def _key(text: str) -> bytes:
    return _decoded(text, f"{PREFIX}SECRET_KEY")


def _peppers(text: str) -> dict[int, bytes]:
    """`1:BASE64,2:BASE64` (or one a line); a bare value is version 1."""
    peppers: dict[int, bytes] = {}
    for entry in text.replace("\n", ",").split(","):
        if not entry.strip():
            continue
        version, colon, value = entry.strip().partition(":")
        if not colon:
            version, value = "1", version
        if not version.isdigit() or not int(version) or int(version) in peppers:
            raise SettingsError(f"{PREFIX}KEY_PEPPER must look like 1:BASE64,2:BASE64")
        peppers[int(version)] = _decoded(value, f"{PREFIX}KEY_PEPPER")
    if not peppers:
        raise SettingsError(f"{PREFIX}KEY_PEPPER must look like 1:BASE64,2:BASE64")
    return peppers


def _decoded(text: str, name: str) -> bytes:
    try:
        value = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        value = b""
    if len(value) != _KEY_BYTES:
        raise SettingsError(f"{name} must be 32 bytes in base64; make one: openssl rand -base64 32")
    return value
