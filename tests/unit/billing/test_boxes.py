"""The documented boxes cost what is documented, and lend their figures where none are given."""

from fractions import Fraction

import pytest

from billing.boxes import AS_OF, BOXES, filled
from billing.tco import faults, hourly


@pytest.mark.parametrize(
    ("name", "an_hour", "a_busy_hour"),
    [
        ("h100", "12.52", "35.78"),
        ("h200", "13.80", "39.43"),
        ("l40s", "2.50", "7.13"),
        ("workstation", "0.60", "2.40"),
        ("edge", "0.158", "0.79"),
        ("edge-small", "0.090", "0.45"),
    ],
)
def test_the_documented_boxes_cost_what_is_documented(
    name: str, an_hour: str, a_busy_hour: str
) -> None:
    profile = BOXES[name].profile
    total = hourly(profile).total

    assert f"{float(total):.{len(an_hour.partition('.')[2])}f}" == an_hour
    assert f"{float(total / Fraction(profile.planned_utilisation)):.2f}" == a_busy_hour
    assert faults(profile) == ()
    assert BOXES[name].source
    assert AS_OF == "2026-11-21"


def test_what_is_given_goes_before_what_the_box_lends() -> None:
    box = filled("h100", {"electricity_per_kwh": "0.30"})

    assert (box.electricity_per_kwh, box.capex, box.profile) == ("0.30", "280000", "h100")


def test_what_nobody_gives_is_named() -> None:
    with pytest.raises(ValueError, match="currency, capex, life_years"):
        filled(None, {})
    with pytest.raises(KeyError):
        filled("h999", {})
