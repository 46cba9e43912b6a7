"""Backends, each with a book of its own: what really reached it and what it really generated."""

from collections.abc import Callable
from typing import Final

import msgspec

from tests.simulator.dice import Dice
from tests.simulator.kernel import Call, Peer
from tests.simulator.scenario import Fault

TIMEOUT_US: Final = 120_000_000


class Work(msgspec.Struct):
    """One line of a backend's book: its own truth about one attempt."""

    request_id: str
    attempt: int
    input_tokens: int
    planned: int
    output_tokens: int = 0
    whole: bool = False


class Head(msgspec.Struct, frozen=True):
    """The beginning of an answer. `work` is None where the backend did nothing."""

    status: int
    work: Work | None = None
    cut: bool = False
    withholds_usage: bool = False


class Backend(Peer):
    def __init__(
        self,
        id_: str,
        dice: Dice,
        book: dict[tuple[str, int], Work],
        worked_for: Callable[[str], None],
    ) -> None:
        self.id = id_
        self._dice = dice
        self._book = book
        self._worked_for = worked_for

    def connects(self) -> bool:
        return not self._dice.chance(Fault.UNREACHABLE, self.id, 60)

    def ask(self, request_id: str, attempt: int, input_tokens: int, most: int) -> Call:
        return Call(
            self,
            "backend",
            self._answer,
            request_id,
            attempt,
            input_tokens,
            most,
            patience_us=TIMEOUT_US,
            repeatable=False,
        )

    def _answer(self, request_id: str, attempt: int, input_tokens: int, most: int) -> Head:
        chance = self._dice.chance
        if chance(Fault.REFUSES, self.id, 25):
            return Head(429 if self._dice.bits(1) else 503)
        planned = 0 if most == 0 else self._dice.between(1, most)
        work = Work(request_id, attempt, input_tokens, planned)
        self._book[request_id, attempt] = work
        self._worked_for(request_id)
        if chance(Fault.BREAKS, self.id, 60):
            return Head(500, work)
        return Head(
            200,
            work,
            cut=chance(Fault.CUT, self.id, 40),
            withholds_usage=chance(Fault.WITHHOLDS, self.id, 40),
        )
