"""Laws of invoices: lines add up to the total, and neither order nor grouping changes a byte."""

import csv
import io
from decimal import Decimal
from random import Random
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from billing.csv_files import csv_text
from billing.invoices import Aggregate, Draft, csv_rows, draft, in_minor_units
from billing.ledger import postings
from billing.meters import METERS, Meters
from billing.money import minor_exponent, minor_picos, parse_picos, round_half_up
from billing.periods import month
from billing.rating import rate
from billing.rollups import SUM_FIELDS, fold
from billing.usage import UsageEvent
from tests.unit.billing.samples import ADMITTED_US, aggregate, card, event

NOVEMBER = month("2026-11", ZoneInfo("Europe/Berlin"))
TOKENS = st.integers(0, 10**7)
USAGE = st.builds(Meters, TOKENS, TOKENS, TOKENS, TOKENS, TOKENS)
CURRENCIES = st.sampled_from(["USD", "JPY", "KWD"])
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
relaxed = settings(deadline=None)


@st.composite
def aggregates(draw: st.DrawFn, currency: str, names: st.SearchStrategy[str]) -> Aggregate:
    price = draw(st.sampled_from(["3", "0.000001", "12.345678"]))
    return aggregate(
        cost_center=draw(names),
        team=draw(names),
        model=draw(names),
        provenance=draw(st.sampled_from(["reported", "estimated"])),
        card=card(currency, input=price, output="15"),
        meters=draw(USAGE),
    )


def drafted(rows: list[Aggregate], currency: str) -> Draft:
    return draft(rows, invoice_id="inv_1", currency=currency, period=NOVEMBER)


FEW_NAMES = st.sampled_from(["", "a", "b"])


@relaxed
@given(CURRENCIES.flatmap(lambda c: st.tuples(st.just(c), st.lists(aggregates(c, FEW_NAMES)))))
def test_lines_add_up_to_the_total_with_one_rounding_line_iff_it_is_needed(
    case: tuple[str, list[Aggregate]],
) -> None:
    currency, rows = case

    made = drafted(rows, currency)

    total_picos = minor_picos(made.total_minor, currency)
    rounding = [line.amount_picos for line in made.lines if line.line_kind == "rounding"]
    assert sum(line.amount_picos for line in made.lines) == total_picos
    assert rounding == ([made.rounding_picos] if made.rounding_picos else [])
    assert 2 * abs(made.rounding_picos) <= minor_picos(1, currency)
    assert total_picos - made.rounding_picos == sum(row.charge_picos for row in rows)


@relaxed
@given(CURRENCIES, st.lists(st.integers(-(10**16), 10**16), max_size=30))
def test_printed_amounts_add_up_and_none_is_a_unit_off(currency: str, amounts: list[int]) -> None:
    printed = in_minor_units(amounts, currency)

    step = minor_picos(1, currency)
    assert sum(printed) == round_half_up(sum(amounts), currency)
    for minor, exact in zip(printed, amounts, strict=True):
        assert abs(minor * step - exact) < step
        assert exact % step or minor * step == exact
    raised = [amount % step for minor, amount in zip(printed, amounts, strict=True)
              if minor * step > amount]  # fmt: skip
    left = [amount % step for minor, amount in zip(printed, amounts, strict=True)
            if minor * step <= amount]  # fmt: skip
    assert min(raised, default=step) >= max(left, default=0), "the largest remainders are raised"


@relaxed
@given(st.lists(aggregates("USD", FEW_NAMES), max_size=8), st.randoms(use_true_random=False))
def test_order_changes_nothing_and_line_ids_are_unique(
    rows: list[Aggregate], shuffler: Random
) -> None:
    made = drafted(rows, "USD")
    shuffled = list(rows)
    shuffler.shuffle(shuffled)

    assert drafted(shuffled, "USD") == made
    assert len({line.line_id for line in made.lines}) == len(made.lines)


@relaxed
@given(st.lists(USAGE, min_size=1, max_size=6))
def test_rows_that_were_summed_beforehand_give_the_same_invoice(parts: list[Meters]) -> None:
    one_by_one = [aggregate(meters=part) for part in parts]

    assert drafted(one_by_one, "USD") == drafted(
        [aggregate(meters=sum(parts, start=Meters()))], "USD"
    )


@relaxed
@given(st.lists(aggregates("USD", NAMES), max_size=5))
def test_the_csv_read_by_anyone_adds_up_and_holds_no_formula(rows: list[Aggregate]) -> None:
    made = drafted(rows, "USD")

    written = "".join(csv_text(csv_rows(made.lines, invoice_number="", tenant="t", currency="USD")))
    read = list(csv.DictReader(io.StringIO(written, newline="")))

    exact = sum((Decimal(row["amount"]) for row in read), Decimal(0))
    assert exact * 10 ** minor_exponent("USD") == made.total_minor
    for row, line in zip(read, made.lines, strict=True):
        assert parse_picos(row["amount"]) == line.amount_picos
        assert row["team"].removeprefix("'") in (line.team, line.team.removeprefix("'"))
        assert not row["team"].startswith(("=", "+", "-", "@", "\t", "\r", "\n"))


@st.composite
def events(draw: st.DrawFn) -> UsageEvent:
    usage, winner = draw(USAGE), draw(st.booleans())
    sample = event()
    assert sample.cost_card is not None
    return event(
        event_id=f"req_{draw(st.integers(0, 10**9))}:0",
        winner=winner,
        team_path=(draw(FEW_NAMES),),
        admitted_at_us=ADMITTED_US + draw(st.integers(0, 3)) * 900_000_000,
        usage=usage,
        charge_picos=rate(usage, sample.charge_card) if winner else 0,
        cost_picos=rate(usage, sample.cost_card),
    )


@relaxed
@given(st.lists(events(), max_size=12), st.integers(0, 12))
def test_rollups_lose_nothing_however_the_events_are_batched(
    batch: list[UsageEvent], cut: int
) -> None:
    whole = fold(batch)
    parts = (*fold(batch[:cut]), *fold(batch[cut:]))

    for field in SUM_FIELDS:
        assert sum(getattr(d, field) for d in whole) == sum(getattr(d, field) for d in parts)
    assert sum(d.charge_picos for d in whole) == sum(e.charge_picos for e in batch)
    for meter in METERS:
        column = f"{meter.value}_tokens"
        assert sum(getattr(d, column) for d in whole) == sum(e.usage.of(meter) for e in batch)


@relaxed
@given(st.lists(events(), max_size=6))
def test_postings_cancel_out_for_every_event_and_kind(batch: list[UsageEvent]) -> None:
    for one in batch:
        for kind, amount in (("charge", one.charge_picos), ("cost", one.cost_picos)):
            sides = [p.amount_picos for p in postings(one) if p.kind == kind]
            assert sum(sides) == 0
            assert max(sides, default=0) == amount


@relaxed
@given(st.lists(events(), max_size=12))
def test_an_invoice_of_the_rollups_is_what_the_events_were_charged(batch: list[UsageEvent]) -> None:
    rows = [
        aggregate(
            team=delta.team_id,
            card=event().charge_card,
            meters=Meters(
                delta.input_tokens,
                delta.cache_read_tokens,
                delta.cache_write_5m_tokens,
                delta.cache_write_1h_tokens,
                delta.output_tokens,
            ),
            charge_picos=delta.charge_picos,
        )
        for delta in fold(batch)
        if delta.winner
    ]

    made = drafted(rows, "USD")

    charged = sum(one.charge_picos for one in batch)
    assert minor_picos(made.total_minor, "USD") - made.rounding_picos == charged
