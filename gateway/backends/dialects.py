"""The table from a backend's `dialect` to how it speaks."""

from typing import Final

from gateway.backends.dialect import Dialect
from gateway.backends.openai import OpenAI

DIALECTS: Final[dict[str, Dialect]] = {dialect.name: dialect for dialect in (OpenAI(),)}
