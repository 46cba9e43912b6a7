"""Which laws may reach a request's data: groups, their members, and the one test of L8.

Every doubt answers no: an unknown name permits nothing, an unlabelled backend is never permitted,
and a gateway that does not say where it stands is permitted nowhere.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

_EU: Final = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK"
_EU_MEMBERS: Final = frozenset(_EU.split())

# ISO 3166-1 alpha-2, the officially assigned codes.
_ASSIGNED: Final = """
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS
    BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE
    EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM
    HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC
    LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA
    NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW
    SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO
    TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW
"""
COUNTRIES: Final = frozenset(_ASSIGNED.split())

_MEANT: Final = {"UK": "GB", "EL": "GR", "USA": "US", "EU27": "EU"}


class Group(msgspec.Struct, frozen=True):
    """A named set of countries. A change of membership is a new edition, never an edit."""

    name: str
    edition: str  # the day this membership came into force
    members: frozenset[str]

    @property
    def pinned(self) -> str:
        """The name that goes on meaning these members when a later edition exists."""
        return f"{self.name}@{self.edition}"


# Newest edition first: a bare name means the first entry that bears it.
GROUPS: Final = (
    Group("EU", "2020-02-01", _EU_MEMBERS),
    Group("EEA", "2020-02-01", _EU_MEMBERS | {"IS", "LI", "NO"}),
)


def group(name: str) -> Group | None:
    """The group called `EU` (its newest edition) or `EU@2020-02-01` (exactly that one)."""
    for each in GROUPS:
        if name in (each.name, each.pinned):
            return each
    return None


def names() -> frozenset[str]:
    """Every name that a document or a backend may bear."""
    return COUNTRIES | {name for each in GROUPS for name in (each.name, each.pinned)}


def fault(name: str) -> str | None:
    """What is wrong with a jurisdiction's name, as a sentence; None when it is known."""
    if name in COUNTRIES or group(name) is not None:
        return None
    meant = _MEANT.get(name.upper(), name.upper())
    if meant in COUNTRIES or group(meant) is not None:
        return f"{name!r} is not a jurisdiction; {meant!r} is"
    return f"{name!r} is neither an ISO 3166-1 country code nor a group (EU, EEA)"


def expand(names: Iterable[str]) -> frozenset[str]:
    """Groups become their members. Unknown names vanish, so that they permit nothing.

    A group's own name stays in the set exactly when all its members are there: a backend labelled
    `EU` is under the law of *some* member, and is permitted only where all of them are. Sets of
    this form intersect to sets of this form.
    """
    countries: set[str] = set()
    for name in names:
        if name in COUNTRIES:
            countries.add(name)
        elif (found := group(name)) is not None:
            countries |= found.members
    whole = {
        label for each in GROUPS if each.members <= countries for label in (each.name, each.pinned)
    }
    return frozenset(countries | whole)


def permits(
    permitted: frozenset[str] | None,
    jurisdictions: frozenset[str],
    gateway_jurisdictions: frozenset[str],
) -> bool:
    """Whether content may go to a backend under these laws, through a gateway under those (L8).

    `permitted` is an expanded set; None means that no policy speaks of residency. Otherwise both
    places must be labelled, and every label must be permitted.
    """
    if permitted is None:
        return True
    return (
        bool(jurisdictions)
        and jurisdictions <= permitted
        and bool(gateway_jurisdictions)
        and gateway_jurisdictions <= permitted
    )


def summary(permitted: frozenset[str]) -> str:
    """An expanded set in the fewest words: `EU`, `CH, EU`, `DE, FR`; `none` when empty."""
    names: set[str] = set(permitted & COUNTRIES)
    for each in sorted(GROUPS, key=lambda g: len(g.members)):
        if each.name in permitted:
            names = {name for name in names if not _within(name, each)} | {each.name}
    return ", ".join(sorted(names)) or "none"


def _within(name: str, whole: Group) -> bool:
    inner = group(name)
    return name in whole.members or (inner is not None and inner.members < whole.members)
