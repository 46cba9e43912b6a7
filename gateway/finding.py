"""What a look at one of our dependencies found."""

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """`state` is ok, warning (works, but look at it) or failed."""

    part: str
    state: str
    found: str
    remedy: str = ""
