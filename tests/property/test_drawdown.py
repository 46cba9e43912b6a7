"""Laws of commitments: what is used, expired and open is what was committed; prepaid or not, a term
comes to the same; tokens are neither lost nor billed twice, in any order.
"""

from collections import Counter
from random import Random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from billing import drawdown
from billing.commitments import WHOLE
from billing.drawdown import Standing, Sums, booked, drawn, share
from billing.invoices import OF_USAGE, Aggregate, InvoiceLine, charged, rounded
from billing.meters import Meters
from billing.money import minor_picos
from billing.periods import Window
from tests.unit.billing.samples import aggregate, card

MONTHS = 4
CARDS = (card(input="3", output="15"), card(input="0.000007", output="12.345678"))
TOKENS = st.integers(0, 40_000_000)
relaxed = settings(deadline=None)


def month(number: int) -> Window:
    return Window(f"m{number}", number * 10**12, (number + 1) * 10**12)


class Booking(msgspec.Struct, frozen=True):
    """Tokens of one team in a month, and the invoice that they came in time for."""

    used_in: int
    billed_in: int
    team: str
    card: int
    input: int
    output: int


@st.composite
def bookings(draw: st.DrawFn) -> list[Booking]:
    """Some come late, and some of those are taken back."""
    found: list[Booking] = []
    for _ in range(draw(st.integers(0, 8))):
        used_in = draw(st.integers(0, MONTHS - 1))
        made = Booking(
            used_in,
            draw(st.integers(used_in, MONTHS)),
            draw(st.sampled_from(["a", "b", "c"])),
            draw(st.integers(0, 1)),
            draw(TOKENS),
            draw(TOKENS),
        )
        found.append(made)
        if draw(st.booleans()):
            later = draw(st.integers(made.billed_in, MONTHS))
            back = msgspec.structs.replace(
                made, billed_in=later, input=-made.input, output=-draw(st.integers(0, made.output))
            )
            found.append(back)
    return found


class Deal(msgspec.Struct, frozen=True):
    """The same for every month."""

    committed_picos: int
    rollover_picos: int
    overage_e4: int
    prepaid: bool


DEALS = st.builds(
    Deal,
    st.integers(0, 900).map(lambda units: units * 10**12),
    st.sampled_from([0, 10**12, 10**15]),
    st.sampled_from([WHOLE, 80 * 10**4, 125 * 10**4]),
    st.booleans(),
)


def standing(deal: Deal, term: int, now: int, kept: Sums) -> Standing:
    rolls = deal.rollover_picos > 0
    return Standing(
        key=f"c/{term}",
        span=month(term),
        committed_picos=deal.committed_picos,
        rollover_picos=deal.rollover_picos,
        prepaid=deal.prepaid,
        overage_e4=deal.overage_e4,
        own=frozenset([month(term).start_us]),
        carry=frozenset([month(term + 1).start_us]) if rolls else frozenset(),
        begun=now == term,
        ends=now == term,
        settled=now > term,
        over=now > term + rolls,
        carry_ends=rolls and now == term + 1,
        sums=kept,
    )


def sums_of(lines: list[InvoiceLine], key: str) -> Sums:
    mine = [line for line in lines if line.commitment == key]

    def amount(kind: str) -> int:
        return sum(line.amount_picos for line in mine if line.line_kind == kind)

    def part(*kinds: str) -> int:
        return sum(line.commitment_picos or 0 for line in mine if line.line_kind in kinds)

    return Sums(
        fee=amount("commitment"),
        used=part("usage"),
        drawn=amount("drawdown"),
        true_up=amount("true_up"),
        unused=part("true_up", "unused"),
        overage=part("overage"),
    )


def rows_of(each: Booking, now: int) -> Aggregate:
    usage, at = Meters(input=each.input, output=each.output), CARDS[each.card]
    return aggregate(
        team=each.team,
        card=at,
        meters=usage,
        period=month(each.used_in),
        corrects_invoice=f"INV-{each.used_in}" if each.used_in < now else None,
    )


def invoiced(
    deal: Deal, made: list[Booking], now: int, before: list[InvoiceLine]
) -> list[InvoiceLine]:
    """The invoice of the month `now`, after those `before`."""
    plain = charged(
        [rows_of(each, now) for each in made if each.billed_in == now],
        invoice_id=f"inv_{now}", currency="USD", period=month(now),
    )  # fmt: skip
    terms = range(min(now + 1, MONTHS))
    standings = [standing(deal, term, now, sums_of(before, f"c/{term}")) for term in terms]
    found = drawn(plain, standings, f"inv_{now}")

    assert tokens(found) == tokens(plain)
    assert len({line.line_id for line in found}) == len(found)
    if not any(each.input < 0 for each in made):
        nothing_is_left_beside_overage(found, now)
    for line in found:
        if line.line_kind in {"true_up", "unused"} and (line.commitment_picos or 0) < 0:
            assert line.corrects_invoice is not None, "it expired once, and says when"
    draft = rounded(found, invoice_id=f"inv_{now}", currency="USD", period=month(now))
    total = sum(line.amount_picos for line in draft.lines)
    assert total == minor_picos(draft.total_minor, "USD")
    return found


DEAREST = 15_000_000


def nothing_is_left_beside_overage(lines: list[InvoiceLine], now: int) -> None:
    """Where a month is charged beyond its commitment, no token of it was left to pay with, not of
    the rest of the month before either.
    """
    beyond = [each for each in lines if each.line_kind == "overage" and not each.corrects_invoice]
    if not beyond:
        return
    expired = (each for each in lines if each.line_kind in {"true_up", "unused"})
    for each in expired:
        if each.commitment in {f"c/{now}", f"c/{now - 1}"}:
            assert (each.commitment_picos or 0) < DEAREST


def tokens(lines: list[InvoiceLine]) -> Counter[tuple[str, ...]]:
    counted: Counter[tuple[str, ...]] = Counter()
    for line in (booked(each) for each in lines if each.line_kind in OF_USAGE):
        named = (line.team, line.meter, line.price_version, str(line.picos_per_token))
        counted[(*named, str(line.period_start_us))] += line.quantity
    return counted


def billed(deal: Deal, made: list[Booking]) -> list[InvoiceLine]:
    """All invoices of the months, and a last one for what came late."""
    lines: list[InvoiceLine] = []
    for now in range(MONTHS + 1):
        lines += invoiced(deal, made, now, lines)
        for term in range(min(now + 1, MONTHS)):
            kept = sums_of(lines, f"c/{term}")
            assert drawdown.sums_of(lines).get(f"c/{term}", Sums()) == kept
            assert 0 <= kept.used <= deal.committed_picos
            assert kept.used + kept.unused <= deal.committed_picos
    return lines


@relaxed
@given(DEALS, bookings())
def test_used_and_expired_is_what_was_committed_and_it_is_charged_once(
    deal: Deal, made: list[Booking]
) -> None:
    lines = billed(deal, made)
    ends = MONTHS - 1 if deal.rollover_picos else MONTHS

    for term in range(ends):
        kept = sums_of(lines, f"c/{term}")
        assert kept.used + kept.unused == deal.committed_picos
    for term in range(MONTHS):
        kept = sums_of(lines, f"c/{term}")
        assert kept.fee + kept.used + kept.drawn + kept.true_up == deal.committed_picos
    overage = sum(line.amount_picos for line in lines if line.line_kind == "overage")
    plain = sum(
        line.amount_picos for line in lines if line.line_kind == "usage" and line.commitment is None
    )
    total = sum(line.amount_picos for line in lines)
    assert total == MONTHS * deal.committed_picos + overage + plain


@relaxed
@given(DEALS, bookings())
def test_whoever_prepays_is_charged_what_whoever_does_not_is(
    deal: Deal, made: list[Booking]
) -> None:
    ways = [
        billed(msgspec.structs.replace(deal, prepaid=prepaid), made) for prepaid in (True, False)
    ]

    first, second = (sum(line.amount_picos for line in lines) for lines in ways)
    assert first == second


@relaxed
@given(DEALS, bookings(), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(
    deal: Deal, made: list[Booking], shuffler: Random
) -> None:
    shuffled = list(made)
    shuffler.shuffle(shuffled)

    assert billed(deal, shuffled) == billed(deal, made)


PRICES = st.sampled_from([1, 7, 3_000_000, 15_000_000])


@relaxed
@given(st.lists(st.tuples(st.integers(1, 10**9), PRICES), max_size=6), st.integers(0, 10**16))
def test_no_token_that_the_rest_of_an_amount_could_pay_is_left_out(
    amounts: list[tuple[int, int]], picos: int
) -> None:
    paid = share(amounts, picos)

    left = picos - sum(n * price for n, (_, price) in zip(paid, amounts, strict=True))
    assert left >= 0
    for n, (quantity, price) in zip(paid, amounts, strict=True):
        assert 0 <= n <= quantity
        assert n == quantity or price > left
