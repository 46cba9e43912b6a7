"""What is counted: disjoint meters, and how sure we are of the figures."""

from enum import StrEnum
from typing import Final

import msgspec


class Meter(StrEnum):
    """One kind of token. Meters are disjoint: a token is counted on exactly one of them."""

    INPUT = "input"
    CACHE_READ = "cache_read"
    CACHE_WRITE_5M = "cache_write_5m"
    CACHE_WRITE_1H = "cache_write_1h"
    OUTPUT = "output"


METERS: Final = tuple(Meter)


class Provenance(StrEnum):
    """Where a usage figure comes from."""

    REPORTED = "reported"  # the backend said so, and it was plausible
    COUNTED = "counted"  # we counted what passed through us
    ESTIMATED = "estimated"  # neither: an upper or partial figure, creditable

    __hash__ = str.__hash__  # as equality; the library's own is a call into Python


class Meters(msgspec.Struct, frozen=True, array_like=True):
    """Tokens by meter. Reasoning tokens are inside `output`; they have no meter of their own."""

    input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0

    @property
    def all_input(self) -> int:
        """Tokens of the prompt, cached or not."""
        return self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h

    @property
    def total(self) -> int:
        written = self.cache_write_5m + self.cache_write_1h
        return self.input + self.cache_read + written + self.output

    def of(self, meter: Meter) -> int:
        return int(getattr(self, meter.value))

    def __add__(self, other: "Meters") -> "Meters":
        return Meters(
            self.input + other.input,
            self.cache_read + other.cache_read,
            self.cache_write_5m + other.cache_write_5m,
            self.cache_write_1h + other.cache_write_1h,
            self.output + other.output,
        )
