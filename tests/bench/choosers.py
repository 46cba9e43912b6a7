"""Ways of choosing among machines: the policies' own, and those it is compared with."""

import random
from collections import deque

from gateway.backends.health import Backends, Flight, Outcome
from gateway.dataplane.sharing import Heard, own
from policies.candidates import Candidate
from policies.compile import EffectivePolicy
from policies.panel import Panel
from policies.route import Plan, decide
from tests.bench.fleet import SECOND, Machine, Request
from tests.policy_builders import GATEWAY, a_candidate, an_ask

SHARED_US = 2 * SECOND
_MODEL = "smollm2"


class RoundRobin:
    def __init__(self, machines: list[Machine]) -> None:
        self._machines = len(machines)

    def order(self, request: Request, now_us: int) -> list[int]:
        return [(request.number + step) % self._machines for step in range(self._machines)]

    def began(self, request: Request, at: int, now_us: int) -> None:
        """Nothing is remembered."""

    def first_byte(self, request: Request, now_us: int) -> None:
        """Nothing is remembered."""

    def ended(self, request: Request, now_us: int, *, served: bool) -> None:
        """Nothing is remembered."""


class ByChance(RoundRobin):
    def __init__(self, machines: list[Machine], seed: int = 1) -> None:
        super().__init__(machines)
        self._drawn = random.Random(seed)

    def order(self, request: Request, now_us: int) -> list[int]:
        return self._drawn.sample(range(self._machines), self._machines)


class LeastLatency(RoundRobin):
    """The least mean of the last ten times to first token; one never tried comes first."""

    def __init__(self, machines: list[Machine]) -> None:
        super().__init__(machines)
        self._last: list[deque[int]] = [deque(maxlen=10) for _ in machines]

    def order(self, request: Request, now_us: int) -> list[int]:
        def mean(at: int) -> float:
            return sum(self._last[at]) / len(self._last[at]) if self._last[at] else 0.0

        return sorted(range(self._machines), key=mean)

    def first_byte(self, request: Request, now_us: int) -> None:
        self._last[request.place].append(request.ttft_us or 0)


class ByPolicy:
    """Workers, each with its own view and what it hears of the others' every two seconds."""

    def __init__(
        self, machines: list[Machine], policy: EffectivePolicy, workers: int = 4, seed: int = 1
    ) -> None:
        self._drawn = random.Random(seed)
        self._candidates = [_candidate(machine) for machine in machines]
        self._index = {each.backend_id: at for at, each in enumerate(self._candidates)}
        self._panel = Panel(policy, self._candidates)
        self._workers = [Backends() for _ in range(workers)]
        self._heard = [Heard(backends) for backends in self._workers]
        self._flights: dict[int, Flight] = {}
        self._shared_us = 0

    def order(self, request: Request, now_us: int) -> list[int]:
        if now_us - self._shared_us >= SHARED_US:
            self._shared_us = now_us
            self._share(now_us)
        ask = an_ask(input_estimate=request.prompt, output_wanted=request.output)
        live = self._of(request).live(now_us)
        routed = decide(self._panel, ask, live, GATEWAY, self._drawn.getrandbits(32))
        if not isinstance(routed, Plan):
            return []
        return [self._index[each.backend_id] for each in routed.attempts]

    def began(self, request: Request, at: int, now_us: int) -> None:
        self._flights[request.number] = self._of(request).began(
            self._candidates[at].backend_id, _MODEL, request.prompt, now_us
        )

    def first_byte(self, request: Request, now_us: int) -> None:
        self._flights[request.number].first_byte(now_us)

    def ended(self, request: Request, now_us: int, *, served: bool) -> None:
        outcome = Outcome.SERVED if served else Outcome.FAILED
        self._flights.pop(request.number).ended(outcome, now_us, request.output)

    def _of(self, request: Request) -> Backends:
        return self._workers[request.number % len(self._workers)]

    def _share(self, now_us: int) -> None:
        told = [own(each, f"w{at}", now_us, now_us) for at, each in enumerate(self._workers)]
        for at, heard in enumerate(self._heard):
            heard.take([each for each in told if each.worker != f"w{at}"], now_us, now_us)


def _candidate(machine: Machine) -> Candidate:
    return a_candidate(
        machine.name, cost_input_picos=machine.price, cost_output_picos=machine.price
    )
