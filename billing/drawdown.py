"""How a month's usage draws on what was committed: whole tokens, and every line's share of it.

Of each term, at any time: used + unused + what is still open = committed. And once its last month
is invoiced, whoever prepaid and whoever did not were charged the same: what was committed, and the
usage beyond it.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from billing.commitments import WHOLE, format_share
from billing.invoices import InvoiceLine, LineKind, line_id
from billing.periods import Window


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """What issued invoices have of a term, in picos of the ledger's currency."""

    fee: int = 0
    used: int = 0
    drawn: int = 0  # of `drawdown` lines: negative
    true_up: int = 0
    unused: int = 0  # said to have expired
    overage: int = 0  # at what it was booked at

    def __add__(self, more: "Sums") -> "Sums":
        both = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(more), strict=True)
        names = self.__struct_fields__
        return Sums(**dict(zip(names, (one + other for one, other in both), strict=True)))


# By the kind of a line, which sum its amount is of, and which one its part of the commitment.
AMOUNTS: Final = {"commitment": "fee", "drawdown": "drawn", "true_up": "true_up"}
PARTS: Final = {
    "usage": "used",
    "overage": "overage",
    "true_up": "unused",
    "unused": "unused",
}


def sums_of(lines: Iterable[InvoiceLine]) -> dict[str, Sums]:
    """By the key of the term, what the lines of an invoice have of it."""
    found: dict[str, Sums] = {}
    for line in lines:
        if line.commitment is None:
            continue
        amounts = ((AMOUNTS, line.amount_picos), (PARTS, line.commitment_picos or 0))
        more = {of[line.line_kind]: picos for of, picos in amounts if line.line_kind in of}
        found[line.commitment] = found.get(line.commitment, Sums()) + Sums(**more)
    return found


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A term before an invoice is made. Months by the instants at which their invoices begin."""

    key: str
    span: Window
    committed_picos: int
    rollover_picos: int = 0  # at most
    prepaid: bool = False
    overage_e4: int = WHOLE
    own: frozenset[int]  # the months whose usage draws on it
    carry: frozenset[int] = frozenset()  # those of the next term, to which the rest rolls over
    begun: bool = False  # the invoice is of one of its months
    ends: bool = False  # of its last, which is over
    settled: bool = False  # that was issued before
    over: bool = False  # and so was the last to which the rest rolls over
    carry_ends: bool = False  # the invoice is of that one, and it is over
    sums: Sums = Sums()

    @property
    def is_paid(self) -> bool:
        """What is used of it was charged before."""
        return self.prepaid or self.settled

    @property
    def drawing(self) -> frozenset[int]:
        """The months whose usage may draw on it now: what rolls over does when it is settled."""
        return self.own | self.carry if self.settled else self.own


class _Part(msgspec.Struct, frozen=True):
    """Tokens of one line, negative where they are taken back."""

    place: int
    quantity: int
    picos: int  # at what they were booked at
    is_used: bool  # else beyond
    late: bool  # of a month of the term after its end was invoiced


class _State:
    """One term while an invoice is made."""

    def __init__(self, standing: Standing) -> None:
        self.of = standing
        self.used = standing.sums.used
        self.overage = standing.sums.overage
        self.unused = standing.sums.unused
        self.parts: list[_Part] = []

    def add(self, place: int, line: InvoiceLine, quantity: int, *, is_used: bool) -> None:
        if quantity == 0:
            return
        picos = quantity * line.picos_per_token
        late = self.of.settled and line.period_start_us in self.of.own
        self.parts.append(_Part(place, quantity, picos, is_used, late))
        if is_used:
            self.used += picos
        else:
            self.overage += picos

    def late_used(self) -> Iterator[_Part]:
        return (part for part in self.parts if part.late and part.is_used)


def drawn(
    lines: Sequence[InvoiceLine], standings: Sequence[Standing], invoice_id: str
) -> list[InvoiceLine]:
    """The lines, those of usage split where a commitment ends, and after them what commitments add.
    What is taken back frees usage beyond first. Older terms are used up first. `standings` are in
    the order of their terms; what no term's month has stays as it is.
    """
    if not standings:
        return list(lines)
    rest = {
        place: line.quantity
        for place, line in enumerate(lines)
        if line.line_kind == "usage" and line.picos_per_token
    }
    states = [_State(each) for each in standings]
    for state in reversed(states):
        _release(state, lines, rest)
    for state in states:
        _fill(state, lines, rest)
    for state in reversed(states):
        for place, quantity in rest.items():
            if quantity > 0 and lines[place].period_start_us in state.of.own:
                state.add(place, lines[place], quantity, is_used=False)
                rest[place] = 0
    made = list(_split(lines, states, rest, invoice_id))
    for state in states:
        made += _own_lines(state, lines, invoice_id)
    return made


def share(amounts: Sequence[tuple[int, int]], picos: int) -> list[int]:
    """Of lines of (tokens, picos a token), how many tokens of each the amount pays: in proportion,
    by largest remainder, and then whatever else fits, cheapest first. What is left of the amount is
    less than any token that is not paid.
    """
    total = sum(quantity * price for quantity, price in amounts)
    if total <= picos:
        return [quantity for quantity, _ in amounts]
    found = [quantity * picos // total for quantity, _ in amounts]
    left = picos - sum(n * price for n, (_, price) in zip(found, amounts, strict=True))
    places = range(len(amounts))
    for place in sorted(places, key=lambda n: (-(amounts[n][0] * picos % total), n)):
        if found[place] < amounts[place][0] and amounts[place][1] <= left:
            found[place] += 1
            left -= amounts[place][1]
    for place in sorted(places, key=lambda n: (amounts[n][1], n)):
        quantity, price = amounts[place]
        more = min(quantity - found[place], left // price)
        found[place] += more
        left -= more * price
    return found


def _release(state: _State, lines: Sequence[InvoiceLine], rest: dict[int, int]) -> None:
    """What is taken back, by as much as there is to take back."""
    for place, quantity in rest.items():
        line = lines[place]
        if quantity >= 0 or line.period_start_us not in state.of.drawing:
            continue
        if line.period_start_us in state.of.own:
            back = min(-rest[place], max(0, state.overage) // line.picos_per_token)
            state.add(place, line, -back, is_used=False)
            rest[place] += back
        back = min(-rest[place], max(0, state.used) // line.picos_per_token)
        state.add(place, line, -back, is_used=True)
        rest[place] += back


def _fill(state: _State, lines: Sequence[InvoiceLine], rest: dict[int, int]) -> None:
    of = state.of
    _pay(state, of.own, of.committed_picos - state.used, lines, rest)
    if of.settled and not of.over:
        _pay(state, of.carry, of.committed_picos - state.used - _expired(state), lines, rest)


def _pay(
    state: _State,
    months: frozenset[int],
    picos: int,
    lines: Sequence[InvoiceLine],
    rest: dict[int, int],
) -> None:
    places = [
        place
        for place, quantity in rest.items()
        if quantity > 0 and lines[place].period_start_us in months
    ]
    amounts = [(rest[place], lines[place].picos_per_token) for place in places]
    for place, paid in zip(places, share(amounts, max(0, picos)), strict=True):
        state.add(place, lines[place], paid, is_used=True)
        rest[place] -= paid


def _unused(state: _State) -> int:
    """What of the term has expired, after this invoice."""
    of = state.of
    left = of.committed_picos - state.used
    if of.over or of.carry_ends:
        return left
    if of.ends:
        return left - min(left, of.rollover_picos)
    return _expired(state)


def _expired(state: _State) -> int:
    """What of the term had expired before. What comes late draws on that before it draws on what
    rolled over; what is taken back late has expired by then.
    """
    unused = state.unused
    for part in state.late_used():
        unused -= min(part.picos, unused)
    return unused


def _split(
    lines: Sequence[InvoiceLine], states: Sequence[_State], rest: dict[int, int], invoice_id: str
) -> Iterator[InvoiceLine]:
    parts: dict[int, list[tuple[_State, _Part]]] = {}
    for state in states:
        for part in state.parts:
            parts.setdefault(part.place, []).append((state, part))
    for place, line in enumerate(lines):
        if place not in parts:
            yield line
            continue
        if rest[place]:
            amount = rest[place] * line.picos_per_token
            yield replace(line, quantity=rest[place], amount_picos=amount)
        for state, part in sorted(parts[place], key=lambda each: not each[1].is_used):
            yield _line_of(line, state.of, part, invoice_id)


def _line_of(line: InvoiceLine, of: Standing, part: _Part, invoice_id: str) -> InvoiceLine:
    said = replace(
        line,
        line_id=line_id(invoice_id, (line.line_id, of.key, part.is_used)),
        quantity=part.quantity,
        amount_picos=part.picos,
        commitment=of.key,
        commitment_picos=part.picos,
    )
    if part.is_used:
        return replace(said, commitment_paid=of.is_paid)
    price = -(-line.picos_per_token * of.overage_e4 // WHOLE)
    listed = line.listed_picos
    return replace(
        said,
        line_kind="overage",
        picos_per_token=price,
        price_version=beyond(line.price_version, of.overage_e4),
        amount_picos=part.quantity * price,
        list_picos_per_token=None if listed == price else listed,
    )


_BEYOND: Final = re.compile(
    r"\*([0-9.]+)%$"
)  # a markup is a factor, and no percent: `price_01*1.25`


def beyond(version: str, overage_e4: int) -> str:
    """What a price is called where usage beyond a commitment has another: `price_01*80%`."""
    return version if overage_e4 == WHOLE else f"{version}*{format_share(overage_e4)}%"


def overage_of(version: str) -> str | None:
    """The percent of the price that usage beyond a commitment has, where it is not the whole."""
    found = _BEYOND.search(version)
    return None if found is None else found[1]


def within(version: str) -> str:
    """What the price is called that it has within the commitment."""
    return _BEYOND.sub("", version)


def booked(line: InvoiceLine) -> InvoiceLine:
    """A line of usage at the price that it has within a commitment."""
    if line.line_kind != "overage" or line.commitment_picos is None:
        return line
    price, listed = line.commitment_picos // line.quantity, line.listed_picos
    return replace(
        line,
        line_kind="usage",
        picos_per_token=price,
        price_version=within(line.price_version),
        amount_picos=line.commitment_picos,
        list_picos_per_token=None if listed == price else listed,
    )


def _own_lines(
    state: _State, lines: Sequence[InvoiceLine], invoice_id: str
) -> Iterator[InvoiceLine]:
    """What the term adds to the invoice: its fee, what was paid before, and what it ends with."""
    of = state.of
    fee = of.committed_picos - of.sums.fee if of.prepaid and of.begun else 0
    if fee:
        yield _line(invoice_id, of, "commitment", fee, fee)
    drawdowns = list(_drawdowns(state, lines, invoice_id)) if of.is_paid else []
    yield from drawdowns
    charged = of.sums.fee + fee + state.used + of.sums.drawn + of.sums.true_up
    charged += sum(line.amount_picos for line in drawdowns)
    missing = of.committed_picos - charged if of.ends else 0
    expired = _expired(state)
    if expired != state.unused:
        yield _expired_otherwise(state, lines, invoice_id, expired - state.unused)
    unused = _unused(state) - expired
    if missing and unused < 0:  # another invoice said that more expired, and that is corrected
        yield _line(invoice_id, of, "true_up", missing, 0)
        yield _line(invoice_id, of, "unused", 0, unused)
    elif missing or unused:
        kind: LineKind = "true_up" if missing else "unused"
        yield _line(invoice_id, of, kind, missing, unused)


def _expired_otherwise(
    state: _State, lines: Sequence[InvoiceLine], invoice_id: str, picos: int
) -> InvoiceLine:
    """By what came late, apart from what expires by now: it corrects what was said then."""
    corrects = [lines[part.place].corrects_invoice for part in state.late_used()][-1]
    made = _line(invoice_id, state.of, "unused", 0, picos, corrects)
    return replace(made, line_id=line_id(invoice_id, (made.line_id, corrects)))


def _drawdowns(
    state: _State, lines: Sequence[InvoiceLine], invoice_id: str
) -> Iterator[InvoiceLine]:
    """By month and invoice that is corrected: another rate of exchange may be theirs."""
    sums: dict[tuple[int, int, str | None], int] = {}
    for part in state.parts:
        if part.is_used:
            of = lines[part.place]
            month = (of.period_start_us, of.period_end_us, of.corrects_invoice)
            sums[month] = sums.get(month, 0) - part.picos
    for (start_us, end_us, corrects), picos in _in_order(sums.items()):
        if picos:
            made = _line(invoice_id, state.of, "drawdown", picos, 0, corrects)
            named = (made.line_id, start_us)
            yield replace(
                made,
                line_id=line_id(invoice_id, named),
                period_start_us=start_us,
                period_end_us=end_us,
            )


_Month = tuple[tuple[int, int, str | None], int]


def _in_order(found: Iterable[_Month]) -> list[_Month]:
    return sorted(found, key=lambda each: (each[0][0], each[0][2] or ""))


def _line(
    invoice_id: str,
    of: Standing,
    kind: LineKind,
    picos: int,
    commitment_picos: int,
    corrects: str | None = None,
) -> InvoiceLine:
    return InvoiceLine(
        line_id=line_id(invoice_id, (kind, of.key)),
        amount_picos=picos,
        amount_minor=0,
        period_start_us=of.span.start_us,
        period_end_us=of.span.end_us,
        line_kind=kind,
        corrects_invoice=corrects,
        commitment=of.key,
        commitment_picos=commitment_picos,
    )
