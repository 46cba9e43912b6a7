"""Boxes that people buy, as profiles to begin with: every value is a default to be replaced.

Each says where its figures come from and as of when. Token rates are in none of them: they belong
to a model on a box, and are worth something only where they were measured.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from billing.tco import Profile

AS_OF: Final = "2026-11-21"

_DATA_CENTRE: Final[Mapping[str, Any]] = {
    "currency": "USD",
    "life_years": 4,
    "cost_of_capital": "0.08",
    "pue": "1.54",
    "electricity_per_kwh": "0.12",
    "planned_utilisation": "0.35",
}
_OFFICE: Final[Mapping[str, Any]] = {**_DATA_CENTRE, "pue": "1", "electricity_per_kwh": "0.20"}
_ROOM: Final = (
    "PUE 1.54: Uptime Institute's weighted average of 2025; assumed: 8 % cost of capital, 4 years, "
    "0.12 a kWh, operations 10 % of capex a year, busy 35 % of the time (write-ups of production "
    "say 30 to 60 %)"
)
_DESK: Final = (
    "no room to cool: PUE 1; assumed: 8 % cost of capital, 4 years, 0.20 a kWh, operations 5 % of "
    "capex a year"
)


class Box(msgspec.Struct, frozen=True):
    """`source` tells which figures are published and which assumed."""

    title: str
    source: str
    profile: Profile


def _box(name: str, title: str, source: str, room: Mapping[str, Any], **fields: Any) -> Box:
    return Box(title, source, Profile(**{**room, **fields, "profile": name}))


BOXES: Final[Mapping[str, Box]] = {
    "h100": _box(
        "h100",
        "server with 8 x H100 SXM",
        "at most 10.2 kW by the maker's data sheet, a GPU about 25,000 to 30,000 by resellers; "
        f"assumed: 280,000 in all, 15 % of it at the end, 7.0 kW busy, 2.4 kW idle. {_ROOM}",
        _DATA_CENTRE,
        capex="280000",
        salvage="42000",
        operations_per_year="28000",
        power_busy_watts=7000,
        power_idle_watts=2400,
    ),
    "h200": _box(
        "h200",
        "server with 8 x H200 SXM",
        "at most 10.2 kW by the maker's data sheet; assumed: 320,000 in all, 20 % of it at the "
        f"end, 7.0 kW busy, 2.4 kW idle. {_ROOM}",
        _DATA_CENTRE,
        capex="320000",
        salvage="64000",
        operations_per_year="32000",
        power_busy_watts=7000,
        power_idle_watts=2400,
    ),
    "l40s": _box(
        "l40s",
        "server with 4 x L40S",
        "350 W a GPU by the maker's data sheet; assumed: 55,000 in all, 15 % of it at the end, "
        f"1.7 kW busy, 0.6 kW idle. {_ROOM}",
        _DATA_CENTRE,
        capex="55000",
        salvage="8250",
        operations_per_year="5500",
        power_busy_watts=1700,
        power_idle_watts=600,
    ),
    "workstation": _box(
        "workstation",
        "workstation with one RTX PRO 6000",
        "600 W and about 10,000 for the card; assumed: 15,000 in all, 15 % of it at the end, "
        f"750 W busy, 120 W idle, busy 25 % of the time; {_DESK}",
        _OFFICE,
        capex="15000",
        salvage="2250",
        operations_per_year="750",
        power_busy_watts=750,
        power_idle_watts=120,
        planned_utilisation="0.25",
    ),
    "edge": _box(
        "edge",
        "DGX Spark (GB10) at the edge",
        "240 W supply, 60 to 90 W in typical use and about 4,000 by reviews; assumed: 10 % of it "
        f"at the end, 90 W busy, 25 W idle, busy 20 % of the time; {_DESK}",
        _OFFICE,
        capex="4000",
        salvage="400",
        operations_per_year="200",
        power_busy_watts=90,
        power_idle_watts=25,
        planned_utilisation="0.2",
    ),
    "edge-small": _box(
        "edge-small",
        "Jetson AGX Orin 64 GB at the edge",
        "a module of the 60 W class; assumed: 2,200, 5 % of it at the end, 50 W busy, 15 W idle, "
        f"busy 20 % of the time; {_DESK}",
        _OFFICE,
        capex="2200",
        salvage="110",
        operations_per_year="110",
        power_busy_watts=50,
        power_idle_watts=15,
        planned_utilisation="0.2",
    ),
}


def filled(name: str | None, given: Mapping[str, Any]) -> Profile:
    """A profile of what is given, and of the box where nothing is. KeyError for an unknown box;
    ValueError names what is given nowhere.
    """
    values = (
        dict(given) if name is None else {**msgspec.structs.asdict(BOXES[name].profile), **given}
    )
    missing = [
        field.name
        for field in msgspec.structs.fields(Profile)
        if field.required and field.name not in values
    ]
    if missing:
        raise ValueError(", ".join(missing))
    return Profile(**values | {"profile": name})
