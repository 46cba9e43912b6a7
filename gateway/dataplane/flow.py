"""What is known of one request while it is served. Facts are added in the order of the walk; what
the client, the ledger and the observers are told is derived from them at the end.
"""

from typing import Final

import msgspec

from billing.meters import Meters, Provenance
from billing.usage import UsageEvent
from gateway import clock
from gateway.backends.dialect import Reported, StreamMeter
from gateway.backends.health import Flight, Outcome
from gateway.dataplane.arrival import Arrival
from gateway.dataplane.desk import Turn
from gateway.dataplane.envelope import Envelope, Fields
from gateway.dataplane.lease import Spend
from gateway.dataplane.levels import Levels, Standing
from gateway.dataplane.quote import Quote
from gateway.dataplane.snapshot import Principal, Route
from gateway.dataplane.transcript import Transcript
from gateway.dataplane.ways import Way
from gateway.stores.redis.holds import Granted, Ticket
from gateway.telemetry.record import TraceIds
from policies import failover
from policies.accounts import Account
from policies.ask import Ask
from policies.decision import Deny
from policies.fair_queue import cost
from policies.filters import Verdict
from policies.route import Plan

NOTICED_S: Final = 0.25  # until a backend has noticed that nobody waits for its answer any more
CLIENT_FAULTS: Final = (400, 413, 422)


class Attempt(msgspec.Struct, gc=False):
    """One try at one candidate. Times are microseconds on the request's scale; 0 = did not
    happen.
    """

    number: int
    way: Way
    started_us: int
    flight: Flight | None = None  # its place in the backend's load
    beside: bool = False  # begun while another one was waited for
    turn: Turn | None = None  # its slot, where the backend takes only so many at a time
    sent: bool = True  # False only when provably no byte left
    status: int = 0  # the backend's; 0 = no answer
    error_type: str = ""
    head_us: int = 0  # its answer began
    content_us: int = 0  # its first content came
    finished_us: int = 0
    complete: bool = False  # the whole answer came
    won: bool = False  # the client was answered from it, wholly or in part
    reported: Reported | None = None
    meter: StreamMeter | None = None
    finish_reasons: tuple[str, ...] = ()
    plain_text: str = ""  # of a whole answer, for counting only
    told_tier: str | None = None  # the service tier that the backend says it served
    paid: int | None = None  # output tokens that were held for, where more may have come

    @property
    def turned_away(self) -> bool:
        """The backend itself says that it did nothing: too busy, or an unfit request."""
        return self.status in CLIENT_FAULTS or (
            failover.outcome_of_status(self.status) is failover.Outcome.REFUSED
        )

    @property
    def ending(self) -> failover.Outcome:
        """What its end says of trying another one."""
        if self.status:
            return failover.outcome_of_status(self.status)
        return failover.outcome_of_failure(sent=self.sent)

    def land(self, outcome: Outcome, now_us: int) -> None:
        """The attempt is over. Only the first call counts."""
        if self.turn is not None:
            self.turn.over(self._cost(), after_s=0 if self._is_over(outcome) else NOTICED_S)
        if self.flight is None:
            return
        flight, self.flight = self.flight, None
        self.finished_us = now_us
        tokens = self.reported.meters.output if self.reported is not None else 0
        flight.ended(outcome, clock.monotonic_us(), tokens if self.meter is not None else 0)

    def _cost(self) -> int | None:
        """In weighted tokens; None: what was thought, for nobody knows better."""
        if self.reported is not None:
            meters = self.reported.meters
            return cost(meters.all_input, meters.output)
        return 0 if not self.sent or self.turned_away else None

    def _is_over(self, outcome: Outcome) -> bool:
        """Whether the backend is done with it, too; else it has yet to notice that we hung up."""
        return not self.sent or self.complete or outcome not in (Outcome.FAILED, Outcome.ABANDONED)


class Flow(msgspec.Struct, gc=False, kw_only=True):
    """One request. Fields are None until their step was reached."""

    arrival: Arrival
    trace: TraceIds
    operation: str
    route_path: str
    principal: Principal | None = None
    body: bytes = b""
    fields: Fields = {}
    envelope: Envelope | None = None
    route: Route | None = None
    ask: Ask | None = None
    tags: dict[str, str] = {}
    verdicts: tuple[Verdict, ...] = ()
    usual_tokens: int = 0  # the estimate that documents compare, where any asks for a size
    decision: bytes = b""  # its facts, packed as it was made
    plan: Plan | None = None
    quote: Quote | None = None
    levels: Levels | None = None
    standing: Standing | None = None
    estimated_tokens: int = 0  # what the per-minute token limits were charged at admission
    template: UsageEvent | None = None  # of the first attempt, as the hold bears it
    ticket: Ticket | None = None  # of the idempotency key that came with it
    transcript: Transcript | None = None  # where a policy keeps the answer for that key
    original_id: str = ""  # the request that has the idempotency key already
    granted: Granted | None = None
    unheld: tuple[Account, ...] = ()  # admitted without the store: where it will be posted
    spend: Spend | None = None  # the leases that pay for it, where any do
    first_slice: int = 0  # the part of the grant that was held at admission; 0: all of it
    experiment: str = ""  # that gave it its model, which may be the one asked for
    degraded_from: str = ""  # the model that was asked for, where another one serves
    shadow_of: str = ""  # the request that it is sent a second time for; nobody waits for it then
    admit_started_us: int = 0
    admitted_us: int = 0
    queued_us: int = 0  # how long it has waited for its turn at full backends
    attempts: list[Attempt] = []  # as they ended; the last is the one that counts, or may yet
    deny: Deny | None = None
    status: int = 0  # what the client saw
    end_by: str = "gateway"  # client | upstream | gateway | limit
    end_phase: str = "admit"  # connect | ttfb | stream | done
    started_answer: bool = False  # bytes have gone to the client
    whole: bool = False  # the client has all of its answer: it cannot leave any more
    left: bool = False  # the client has hung up, and the backend is heard to its end all the same
    gone: bool = False  # the client hung up first
    first_content_us: int = 0
    chunks: int = 0
    finished_us: int = 0
    # what settlement found, for the observers
    meters: Meters | None = None
    provenance: Provenance | None = None
    charge_picos: int = 0
    reasoning: int = 0

    @property
    def winner(self) -> Attempt | None:
        """The attempt that the client was answered from."""
        for attempt in self.attempts:
            if attempt.won:
                return attempt
        return None

    @property
    def unprocessed(self) -> bool:
        """No backend did any work for it, provably."""
        return all(attempt.turned_away or not attempt.sent for attempt in self.attempts)

    @property
    def dispatched(self) -> bool:
        """Whether any attempt may have reached a backend."""
        for attempt in self.attempts:  # noqa: SIM110 - a generator costs three times as much
            if attempt.sent:
                return True
        return False
