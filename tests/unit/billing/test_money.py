import pytest

from billing import money


@pytest.mark.parametrize(
    ("text", "picos"),
    [
        ("0", 0),
        ("1", 10**12),
        ("0.000000000001", 1),
        ("12.50", 12_500_000_000_000),
        ("-2.77", -2_770_000_000_000),
        ("-0", 0),
        ("007", 7 * 10**12),
        ("123456.789012345", 123_456_789_012_345_000),
        ("999999999999999.999999999999", 10**27 - 1),
    ],
)
def test_a_decimal_text_is_read_exactly(text: str, picos: int) -> None:
    assert money.parse_picos(text) == picos


@pytest.mark.parametrize(
    "text",
    ["", " 1", "1 ", "1\n", "+1", "1e3", "1E-7", ".5", "5.", "1,000", "1.5.2", "--1", "NaN", "٣",
     "$1", "1_000", "1000000000000000"],
)  # fmt: skip
def test_what_is_not_a_plain_decimal_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a decimal amount.*12\.50"):
        money.parse_picos(text)


def test_a_thirteenth_decimal_is_refused_rather_than_dropped() -> None:
    with pytest.raises(ValueError, match="has 13 decimals; at most 12"):
        money.parse_picos("0.0000000000010")


@pytest.mark.parametrize(
    ("picos", "text"),
    [
        (0, "0"),
        (money.PICOS_PER_UNIT, "1"),
        (1, "0.000000000001"),
        (-1, "-0.000000000001"),
        (12_500_000_000_000, "12.5"),
        (123_456_789_012_345_000, "123456.789012345"),
        (10**30, "1000000000000000000"),
    ],
)
def test_an_amount_is_written_without_exponent_or_trailing_zeros(picos: int, text: str) -> None:
    assert money.format_picos(picos) == text


@pytest.mark.parametrize(
    ("currency", "exponent"), [("USD", 2), ("EUR", 2), ("JPY", 0), ("KWD", 3), ("CLF", 4)]
)
def test_minor_units_follow_iso_4217(currency: str, exponent: int) -> None:
    assert money.minor_exponent(currency) == exponent


@pytest.mark.parametrize("currency", ["usd", "XXX", "", "BTC", "US"])
def test_an_unknown_currency_is_refused_everywhere(currency: str) -> None:
    for ask in (money.minor_exponent, money.counter_exponent):
        with pytest.raises(ValueError, match="is not a currency of ISO 4217"):
            ask(currency)


@pytest.mark.parametrize(
    ("picos", "currency", "minor"),
    [
        (5_000_000_000, "USD", 1),
        (4_999_999_999, "USD", 0),
        (-5_000_000_000, "USD", -1),
        (-4_999_999_999, "USD", 0),
        (1_005_000_000_000, "USD", 101),
        (416_500_000_000_000, "JPY", 417),
        (852_500_000_000, "KWD", 853),
        (852_499_999_999, "KWD", 852),
        (0, "USD", 0),
    ],
)
def test_a_half_is_rounded_away_from_zero(picos: int, currency: str, minor: int) -> None:
    assert money.round_half_up(picos, currency) == minor


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (1230, "USD", "12.30"),
        (5, "USD", "0.05"),
        (-5, "USD", "-0.05"),
        (0, "USD", "0.00"),
        (0, "JPY", "0"),
        (417, "JPY", "417"),
        (-417, "JPY", "-417"),
        (852, "KWD", "0.852"),
    ],
)
def test_minor_units_are_printed_with_the_currencys_decimals(
    minor: int, currency: str, text: str
) -> None:
    assert money.format_minor(minor, currency) == text


def test_a_header_amount_names_its_currency() -> None:
    assert money.format_amount(12_344_999_000_000, "USD") == "12.34 USD"


@pytest.mark.parametrize("currency", ["JPY", "KRW", "IDR", "VND", "HUF"])
def test_currencies_of_small_units_count_in_millionths(currency: str) -> None:
    assert money.counter_exponent(currency) == 6


def test_other_currencies_count_in_nanos() -> None:
    assert money.counter_exponent("EUR") == 9


def test_counter_units_are_rounded_up() -> None:
    assert money.counter_units(1, "USD") == 1
    assert money.counter_units(1_000, "USD") == 1
    assert money.counter_units(1_001, "USD") == 2
    assert money.counter_units(0, "USD") == 0
    assert money.counter_units(1_000_001, "JPY") == 2


def test_a_budget_of_a_hundred_thousand_survives_the_way_to_the_counter_and_back() -> None:
    units = money.parse_counter("123456.789012345", "USD")

    assert units == 123_456_789_012_345
    assert money.format_counter(units, "USD") == "123456.789012345"
    assert money.counter_picos(units, "USD") == money.parse_picos("123456.789012345")


def test_the_largest_budget_is_the_last_one_that_lua_counts_exactly() -> None:
    assert money.parse_counter("9007199.254740991", "USD") == money.MAX_COUNTER
    with pytest.raises(ValueError, match=r"the most is 9007199\.254740991 USD"):
        money.parse_counter("9007199.254740992", "USD")
    assert money.parse_counter("9007199254.740991", "JPY") == money.MAX_COUNTER


@pytest.mark.parametrize(
    ("text", "currency", "fault"),
    [
        ("-1", "USD", "is negative"),
        ("0.0000000001", "USD", "10 decimals; at most 9"),
        ("0.0000001", "JPY", "7 decimals; at most 6"),
    ],
)
def test_a_budget_that_a_counter_cannot_hold_is_refused(
    text: str, currency: str, fault: str
) -> None:
    with pytest.raises(ValueError, match=fault):
        money.parse_counter(text, currency)


def test_a_budget_of_nothing_is_a_budget() -> None:
    assert money.parse_counter("0", "USD") == 0


def test_an_overdrawn_budget_can_be_shown() -> None:
    assert money.format_counter(-1_500_000_000, "USD") == "-1.5"


@pytest.mark.parametrize(
    ("currency", "room", "most"),
    [
        ("USD", None, money.MAX_COUNTER),
        ("USD", 2**63 - 1, money.MAX_COUNTER),
        ("IRR", None, money.MAX_COUNTER),
        ("IRR", 2**63 - 1, 9_223_372_036_854),
    ],
)
def test_a_counter_counts_no_more_than_there_is_room_for(
    currency: str, room: int | None, most: int
) -> None:
    assert money.most_counted(currency, room) == most
    if room is not None:
        assert money.counter_picos(most, currency) <= room
