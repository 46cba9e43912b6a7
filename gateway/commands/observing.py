"""What `meterhouse tco` says of a backend at work: fitted beside assumed."""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from billing.money import format_decimal

Told = dict[str, Any]


def in_words(seen: Told) -> Iterator[str]:
    """Of the admin API's report on the backend."""
    fitted, assumed = seen["fitted"], seen["assumed"] or {}
    at_once = f"{fitted['requests_at_once']} requests at once"
    planned = assumed.get("planned_utilisation")
    plan = "" if planned is None else f", planned {_percent(planned)}"
    yield f"observed from {seen['from']} to {seen['to']}: {seen['attempts']} attempts, {at_once}"
    yield f"  busy         {_percent(seen['utilisation'])} of the time{plan}"
    for name in ("prefill", "decode"):
        field = f"{name}_tokens_per_second"
        yield f"  {name:<12} {_rate(fitted[field], fitted)}; assumed {assumed.get(field) or 'none'}"
    for reason in fitted["because"]:
        yield f"               {reason}"
    if seen["energy"] is not None:
        energy, a_million = seen["energy"], seen["energy"]["kwh_per_million_tokens"]
        each = "" if a_million is None else f", {a_million} kWh a million tokens"
        yield f"  energy       {energy['kwh']} kWh{each}"
    if seen["money"] is not None:
        money = seen["money"]
        yield (
            f"  cost         {money['actual']} {money['currency']}: {money['absorbed']} borne by "
            f"tokens, {money['variance']} idle (since {money['from']})"
        )


def idle_in_words(told: Told, names: Mapping[str, str]) -> Iterator[str]:
    """Of the admin API's answer on a month of a box. `names`: of teams, by id."""
    left = told["left"]
    if left is None:
        yield f"{told['because']}"
    else:
        money, busy = left["currency"], left["busy_seconds"]
        yield f"{told['period']}, from {left['from']} to {left['to']}: busy {busy} s"
        yield (
            f"  cost         {left['actual']} {money}: {left['absorbed']} borne by tokens, "
            f"{left['variance']} beyond them"
        )
        if left["absorbed_before"] != "0":
            yield (
                f"  not booked   what it cost before {left['from']}, when its tco begins to count; "
                f"tokens of then bore {left['absorbed_before']} {money}. Where it is the same box, "
                "give it a tco_effective_from at the start of the month"
            )
        for part in left["parts"]:
            due = "" if part["due"] == "0" else f", of which {part['due']} is not booked"
            whose = names.get(part["account"], part["account"])
            yield f"  {whose:<12} {part['amount']} {money}{due}"
    for entry in told["booked"]:
        yield f"  booked       {entry['amount']} on {entry['created_at']} ({entry['id']})"


def _rate(rate: Told | None, fitted: Told) -> str:
    if rate is None:
        return "not claimed"
    sure = f"{fitted['sure_percent']} % between {rate['low']} and {rate['high'] or 'no bound'}"
    return f"{rate['middle']} tokens a second ({sure})"


def _percent(share: str) -> str:
    return f"{format_decimal(int(Fraction(share) * 1000 + Fraction(1, 2)), 1)} %"
