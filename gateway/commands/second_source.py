"""Another source of a model's prices, from a file: what a catalogue is held against.

Two forms are read. `.json`: the map that LiteLLM publishes (`model_prices_and_context_window.json`,
money a token). Anything else is CSV with the columns model, meter and amount_per_million, and
service_tier where there are other tiers than the standard one.
"""

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

from billing.service_tiers import ServiceTier

COLUMNS: Final = ("model", "meter", "amount_per_million")
_MILLION: Final = 10**6
_DECIMALS: Final = 6
_PER_TOKEN: Final[Mapping[str, str]] = {
    "input_cost_per_token": "input",
    "cache_read_input_token_cost": "cache_read",
    "cache_creation_input_token_cost": "cache_write_5m",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "output_cost_per_token": "output",
}
_ENDINGS: Final[Mapping[ServiceTier, str]] = {
    ServiceTier.STANDARD: "",
    ServiceTier.BATCH: "_batches",
    ServiceTier.FLEX: "_flex",
    ServiceTier.PRIORITY: "_priority",
}

_Found = tuple[tuple[str, str], str]  # (tier, meter), amount


class SecondSourceError(ValueError):
    """The file does not say what the model costs. The message says what it lacks."""


def read(file: Path, model: str) -> dict[str, Any]:
    """As the import takes it: the source's name with its digest, and its amounts by tier and meter.
    OSError, SecondSourceError.
    """
    content = file.read_bytes()
    text = content.decode("utf-8-sig", errors="replace")
    found = dict(_of_map(file, text, model) if file.suffix == ".json" else _of_table(text, model))
    if not found:
        raise SecondSourceError(f"{file} has no price of {model!r}")
    digest = hashlib.sha256(content).hexdigest()[:16]
    return {
        "name": f"{file.name[-80:].strip()} sha256:{digest}",
        "amounts": [
            {"service_tier": tier, "meter": meter, "amount_per_million": amount}
            for (tier, meter), amount in found.items()
        ],
    }


def _of_map(file: Path, text: str, model: str) -> Iterator[_Found]:
    try:
        told = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    except json.JSONDecodeError as fault:
        raise SecondSourceError(f"{file} is no JSON: {fault}") from fault
    entry = told.get(model) if isinstance(told, dict) else None
    if not isinstance(entry, dict):
        raise SecondSourceError(f"{file} has no model {model!r}; --cross-check-model names it")
    for tier, ending in _ENDINGS.items():
        for key, meter in _PER_TOKEN.items():
            amount = entry.get(key + ending)
            if isinstance(amount, Decimal):
                where = f"{file}, {model}, {key}{ending}"
                yield (tier.value, meter), _plain(amount * _MILLION, where)


def _of_table(text: str, model: str) -> Iterator[_Found]:
    table = csv.DictReader(text.splitlines(), strict=True)
    missing = [name for name in COLUMNS if name not in (table.fieldnames or ())]
    if missing:
        raise SecondSourceError(f"the file has no column {', '.join(missing)}")
    try:
        for row in table:
            if (row["model"] or "").strip() == model:
                where = f"line {table.line_num}"
                written = (row["amount_per_million"] or "").strip()
                tier = (row.get("service_tier") or "").strip() or ServiceTier.STANDARD.value
                meter = (row["meter"] or "").strip()
                yield (tier, meter), _plain(_decimal(written, where), where)
    except csv.Error as fault:
        raise SecondSourceError(f"line {table.line_num}: {fault}") from fault


def _decimal(written: str, where: str) -> Decimal:
    try:
        return Decimal(written)
    except InvalidOperation:
        raise SecondSourceError(f"{where}: {written!r} is no amount") from None


def _plain(amount: Decimal, where: str) -> str:
    """Without exponent and needless zeros."""
    if not amount.is_finite() or amount < 0 or amount != round(amount, _DECIMALS):
        raise SecondSourceError(f"{where}: {amount} a million is no price of at most 6 decimals")
    return format(round(amount, _DECIMALS).normalize(), "f")
