"""A month's lines split where a commitment ends; `tests/property/test_drawdown.py` has the laws."""

from billing.drawdown import Standing, Sums, beyond, booked, drawn, overage_of, share
from billing.invoices import InvoiceLine, charged
from billing.meters import Meters
from billing.money import format_picos, parse_picos
from billing.periods import Window
from tests.unit.billing.samples import aggregate

OCTOBER = Window("m2026-10", 1_790_805_600_000_000, 1_793_487_600_000_000)


def used(*million: int) -> list[InvoiceLine]:
    """Input of as many teams, at 3.00 a million."""
    rows = [
        aggregate(team=f"team-{n}", meters=Meters(input=each * 1_000_000))
        for n, each in enumerate(million)
    ]
    return charged(rows, invoice_id="inv_1", currency="USD", period=OCTOBER)


def standing(amount: str, **given: object) -> Standing:
    fields = {"own": frozenset([OCTOBER.start_us]), "begun": True} | given
    return Standing(
        key="cmt_1/2026-10-01", span=OCTOBER, committed_picos=parse_picos(amount),
        **fields,  # type: ignore[arg-type]
    )  # fmt: skip


def told(lines: list[InvoiceLine]) -> list[tuple[str, str, str]]:
    return [(line.line_kind, line.team, format_picos(line.amount_picos)) for line in lines]


def test_every_team_has_its_share_of_a_commitment() -> None:
    made = drawn(used(10, 30), [standing("60", prepaid=True)], "inv_1")

    assert told(made) == [
        ("usage", "team-0", "15"),
        ("overage", "team-0", "15"),
        ("usage", "team-1", "45"),
        ("overage", "team-1", "45"),
        ("commitment", "", "60"),
        ("drawdown", "", "-60"),
    ]


def test_without_a_commitment_lines_stay_as_they_are() -> None:
    lines = used(10)
    elsewhere = standing("60", own=frozenset([OCTOBER.end_us]), begun=False)

    assert drawn(lines, [], "inv_1") == lines
    assert drawn(lines, [elsewhere], "inv_1") == lines


def test_what_is_taken_back_frees_usage_beyond_it_first() -> None:
    before = Sums(used=parse_picos("60"), overage=parse_picos("9"))

    made = drawn(used(-4), [standing("60", sums=before)], "inv_1")

    assert told(made) == [("usage", "team-0", "-3"), ("overage", "team-0", "-9")]


def test_an_overage_has_the_price_and_the_name_that_it_was_booked_by() -> None:
    (line,) = used(10)
    _, made = drawn([line], [standing("15", overage_e4=400_000)], "inv_1")

    assert (made.price_version, made.picos_per_token) == ("v_input*40%", 1_200_000)
    plain = booked(made)
    assert (plain.price_version, plain.picos_per_token) == ("v_input", 3_000_000)
    assert (plain.amount_picos, plain.list_picos_per_token) == (parse_picos("15"), None)
    assert booked(line) == line


def test_a_version_says_the_percent_unless_it_is_the_whole() -> None:
    assert beyond("price_1", 1_000_000) == "price_1"
    assert overage_of(beyond("price_1", 1_250_000)) == "125"
    assert overage_of("price_1-12.5%") is None


def test_teams_share_in_proportion_to_what_they_use() -> None:
    assert share([(300, 10), (100, 10), (0, 10)], 2_000) == [150, 50, 0]
