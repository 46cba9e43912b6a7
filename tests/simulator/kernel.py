"""Virtual time: one queue of what happens next, processes that can be stopped and killed, tasks
that wait for sleep or for the answer to a message.

A task is a generator. It yields how long it sleeps, in microseconds, or the `Call` it makes, and is
resumed with the answer; a call that fails raises `Unreachable` in it.
"""

import contextlib
from collections.abc import Callable, Generator
from heapq import heappop, heappush
from typing import Any, Final

from tests.simulator.dice import Dice
from tests.simulator.scenario import Fault

PATIENCE_US: Final = 5_000_000
MOST_LATE_US: Final = 90_000_000  # a connection does not keep a message for longer

Story = Generator[Any, Any, None]
Answered = Callable[[Any], None]


class Unreachable(Exception):  # noqa: N818 (the product's word is StoreUnavailable)
    """No answer. `sent`: it may have been carried out."""

    def __init__(self, *, sent: bool) -> None:
        self.sent = sent


class Cancelled(Exception):  # noqa: N818 (a state)
    """The task is told to end."""


class ClientGone(Exception):  # noqa: N818 (a state)
    """Whom the task works for has left."""


class ProcessDied(BaseException):
    """Nothing more happens in this process; nobody may catch it but the kernel."""

    def __init__(self, process: "Process") -> None:
        self.process = process


class Call:
    """One message to somebody who answers.

    `on_loss(answer)`: nobody waits any more for this answer; None: it is not known. `repeatable`: a
    network may deliver it twice (its sender would send it again).
    """

    __slots__ = (
        "apply",
        "args",
        "connection",
        "name",
        "on_loss",
        "patience_us",
        "peer",
        "repeatable",
    )

    def __init__(
        self,
        peer: "Peer",
        name: str,
        apply: Callable[..., Any],
        *args: Any,
        patience_us: int = PATIENCE_US,
        repeatable: bool = True,
        on_loss: Answered | None = None,
    ) -> None:
        self.peer = peer
        self.connection = 0
        self.name = name
        self.apply = apply
        self.args = args
        self.patience_us = patience_us
        self.repeatable = repeatable
        self.on_loss = on_loss


class Peer:
    """Who answers calls: the store, the ledger, a backend."""

    down_until_us = 0
    slow_us = 0
    connection = 0  # what was sent over another one is lost with it
    is_far = False  # a process may be cut off from it


class Process:
    """Tasks that live and die together. Its memory is whatever its tasks refer to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.stopped_until_us = 0
        self.cut_off_until_us = 0  # from whoever is far
        self.on_death: Callable[[Fault], None] = lambda _fault: None


class Task:
    __slots__ = ("done", "process", "story", "turn")

    def __init__(self, process: Process, story: Story) -> None:
        self.process = process
        self.story = story
        self.turn = 0  # answers to what it no longer waits for are told by it
        self.done = False


class Kernel:
    """The queue and the clock. Everything happens in `step`."""

    def __init__(self, now_us: int, dice: Dice) -> None:
        self.now_us = now_us
        self.dice = dice
        self.events = 0
        self.trace: Callable[[str], None] | None = None
        self._queue: list[tuple[int, int, Callable[[Any, Any], None], Any, Any]] = []
        self._number = 0

    def after(self, delay_us: int, do: Callable[[Any, Any], None], a: Any, b: Any = None) -> None:
        self._number += 1
        heappush(self._queue, (self.now_us + delay_us, self._number, do, a, b))

    def step(self) -> bool:
        """The next thing happens; False: nothing ever will."""
        if not self._queue:
            return False
        at_us, _, do, a, b = heappop(self._queue)
        self.now_us = at_us
        self.events += 1
        with contextlib.suppress(ProcessDied):
            do(a, b)
        return True

    def start(self, process: Process, story: Story, delay_us: int = 0) -> Task:
        task = Task(process, story)
        self.after(delay_us, self._resume, (task, 0), None)
        return task

    def interrupt(self, task: Task, reason: Exception) -> None:
        """The task stops waiting for whatever it waits for; one that has not begun goes on."""
        if task.turn and not task.done:
            task.turn += 1
            self.after(0, self._resume, (task, task.turn), reason)

    def post(self, process: Process, call: Call, then: Answered) -> None:
        """Make a call that no task waits for; `then(None)` when it is not known what became of it
        or it was not carried out.
        """
        self._send(process, call, (process, then))

    def is_cut_off(self, process: Process, peer: Peer) -> bool:
        return peer.is_far and process.cut_off_until_us > self.now_us

    def kill(self, process: Process, fault: Fault) -> None:
        if process.alive:
            process.alive = False
            process.on_death(fault)

    def at(self, step: str, process: Process) -> int:
        """A named point of a process: a fault may strike here. Answers how long the process is
        stopped, 0 for not at all. Raises ProcessDied.
        """
        if self.dice.next_step():
            return 0
        fault = self.dice.step_fault(step)
        if fault is None:
            return 0
        self.say(f"{process.name} at {step}: {fault.value}", is_fault=True)
        if fault is Fault.STOP:
            pause_us = self.dice.between(2_000_000, 100_000_000)
            process.stopped_until_us = self.now_us + pause_us
            return pause_us
        self.kill(process, fault)
        raise ProcessDied(process)

    def say(self, what: str, *, is_fault: bool = False) -> None:
        if self.trace is not None:
            seconds, micros = divmod(self.now_us, 1_000_000)
            self.trace(f"{'!' if is_fault else ' '} {seconds}.{micros:06d} {what}")

    def _resume(self, ticket: tuple[Task, int], value: Any) -> None:
        task, turn = ticket
        process = task.process
        if task.done or task.turn != turn or not process.alive:
            return
        if process.stopped_until_us > self.now_us:
            self.after(process.stopped_until_us - self.now_us, self._resume, ticket, value)
            return
        try:
            if isinstance(value, Exception):
                wish = task.story.throw(value)
            else:
                wish = task.story.send(value)
        except StopIteration:
            task.done = True
            return
        task.turn += 1
        if isinstance(wish, int):
            self.after(wish, self._resume, (task, task.turn), None)
        else:
            self._send(process, wish, (task, task.turn))

    def _send(self, process: Process, call: Call, ticket: tuple[Any, Any]) -> None:
        peer, dice = call.peer, self.dice
        call.connection = peer.connection
        if peer.down_until_us > self.now_us or self.is_cut_off(process, peer):
            self.after(dice.latency_us(), self._answer, (ticket, call), Unreachable(sent=False))
            return
        there_us = dice.latency_us() + peer.slow_us
        fault = dice.message_fault(call.name) if dice.message_is_hit() else None
        if fault is None:
            self.after(there_us, self._apply, (ticket, call), dice.latency_us())
            return
        self.say(f"{process.name} -> {call.name}: {fault.value}", is_fault=True)
        unknown_us = dice.between(1_000, call.patience_us)
        match fault:
            case Fault.LOST:
                self.after(unknown_us, self._answer, (ticket, call), Unreachable(sent=True))
            case Fault.UNKNOWN:
                self.after(there_us, self._apply, (None, call), 0)
                self.after(
                    there_us + unknown_us, self._answer, (ticket, call), Unreachable(sent=True)
                )
            case Fault.TWICE if call.repeatable:
                self.after(there_us, self._apply, (ticket, call), dice.latency_us())
                self.after(there_us + dice.between(1, MOST_LATE_US), self._apply, (None, call), 0)
            case _:
                late_us = dice.between(call.patience_us, call.patience_us + MOST_LATE_US)
                self.after(call.patience_us, self._answer, (ticket, call), Unreachable(sent=True))
                self.after(late_us, self._apply, (None, call), 0)

    def _apply(self, what: tuple[tuple[Any, Any] | None, Call], back_us: int) -> None:
        ticket, call = what
        peer = call.peer
        gone = ticket is not None and self.is_cut_off(_process_of(ticket), peer)
        if gone or peer.down_until_us > self.now_us or call.connection != peer.connection:
            if ticket is not None:
                self.after(back_us, self._answer, what, Unreachable(sent=True))
            return
        answer = call.apply(*call.args)
        if ticket is not None:
            self.after(back_us, self._answer, what, answer)

    def _answer(self, what: tuple[tuple[Any, Any], Call], answer: Any) -> None:
        (waiting, turn), call = what
        process = _process_of((waiting, turn))
        if not process.alive:
            return
        if process.stopped_until_us > self.now_us:
            self.after(process.stopped_until_us - self.now_us, self._answer, what, answer)
            return
        failed = isinstance(answer, Unreachable)
        if not isinstance(waiting, Task):
            turn(None if failed else answer)
            return
        heard = not waiting.done and waiting.turn == turn
        if call.on_loss is not None and (answer.sent if failed else not heard):
            call.on_loss(None if failed else answer)
        if heard:
            self._resume((waiting, turn), answer)


def _process_of(ticket: tuple[Any, Any]) -> Process:
    """Who waits: a task of its, or nobody in particular."""
    waiting = ticket[0]
    process: Process = waiting.process if isinstance(waiting, Task) else waiting
    return process
