"""What the head of a request claims of its host and its framing, judged before anybody acts on it.

The parser takes any number of hosts and any codings before `chunked`. A proxy before us may have
read another host, or another body, than we would: what is not plain is refused (RFC 9112 3.2, 6.1).
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

Fault = tuple[int, str]  # status, and why
Header = tuple[bytes, bytes]  # name in lower case, value

_CLAIMS: Final = frozenset((b"host", b"transfer-encoding"))
_HOST: Final = re.compile(rb"(\[[0-9A-Za-z:.%~_-]+\]|[0-9A-Za-z._~%!$&'()*+,;=-]*)(:[0-9]*)?")
_CHUNKED: Final = b"chunked"
_NO_HOST: Final = (
    "a request names the host it is for in one Host header: a name or an address, and perhaps a"
    " port"
)
_UNFRAMED: Final = (
    "where the body ends cannot be told: send content-length, or over HTTP/1.1 transfer-encoding:"
    " chunked alone"
)
_CODED: Final = "no transfer coding but chunked is understood; send the body as it is"


def fault_of(headers: Iterable[Header], *, old: bool) -> Fault | None:
    """Why a head with these headers is refused; `old`: of an HTTP before 1.1, which need not name
    a host and knows no codings.
    """
    return _judged(tuple([each for each in headers if each[0] in _CLAIMS]), old)


@lru_cache(maxsize=64)
def _judged(claims: tuple[Header, ...], old: bool) -> Fault | None:
    hosts = [value for name, value in claims if name == b"host"]
    if len(hosts) > 1 or not (_HOST.fullmatch(hosts[0].strip(b" \t")) if hosts else old):
        return 400, _NO_HOST
    if len(claims) == len(hosts):
        return None
    said = b",".join(value for name, value in claims if name != b"host")
    codings = [each.strip().lower() for each in said.split(b",")]
    if old or b"" in codings or codings[-1] != _CHUNKED or _CHUNKED in codings[:-1]:
        return 400, _UNFRAMED
    return None if len(codings) == 1 else (501, _CODED)
