"""Decisions on their way to the ledger: packed when made, handed in with what came of them.

A decision travels inside the usage event of its request, so it is as safe as the bill. What many
decisions have in common goes along until the ledger is known to have it. A refused request leaves
no usage: its decision goes into the journal alone, of so many in a second as anybody could look at.
"""

from collections.abc import Mapping
from typing import Final

from gateway import clock
from gateway.dataplane.flow import Flow
from gateway.dataplane.snapshot import Route
from gateway.stores.redis.channel import Reply
from gateway.stores.redis.holds import HoldStore, StoreUnavailable
from policies import facts
from policies.candidates import Live
from policies.facts import Record, Recorder, Standing
from policies.route import Plan, Routed

REFUSALS_A_SECOND: Final = 50  # recorded by one worker; a flood of refusals must cost no memory
_MOST_TOLD: Final = 100_000


class Decisions:
    """Of one worker. `unrecorded` counts refusals that were not written down."""

    def __init__(self, holds: HoldStore, jurisdictions: frozenset[str]) -> None:
        self._holds = holds
        self._jurisdictions = jurisdictions
        self._told: set[bytes] = set()
        self._second = 0
        self._in_second = 0
        self.unrecorded = 0

    def made(
        self,
        flow: Flow,
        route: Route,
        live: Mapping[tuple[str, str], Live],
        routed: Routed,
        draw: int,
        degraded_from: str,
    ) -> None:
        """`flow.decision` is what was decided and why, from now on."""
        ask = flow.ask
        if ask is None:
            raise RuntimeError("a decision on nothing")
        recorder = route.panel.recorder
        if recorder is None:
            route.panel.recorder = recorder = self._recorder(route)
        if isinstance(routed, Plan):
            verdicts, attempts, refusal = routed.verdicts, routed.attempts, ""
        else:
            verdicts = route.panel.judge(ask, live, self._jurisdictions)[1]
            attempts, refusal = (), routed.code.value
        at_us = flow.arrival.arrived_us
        usual, experiment = flow.usual_tokens, flow.experiment
        flow.decision = recorder.facts(
            ask, live, verdicts, attempts, draw, at_us, refusal, degraded_from, usual, experiment
        )

    def standing(self, flow: Flow) -> bytes:
        """What the decision refers to, until it was told."""
        recorder = flow.route.panel.recorder if flow.route is not None else None
        if recorder is None or recorder.digest in self._told:
            return b""
        return recorder.packed

    def told(self, standing: bytes) -> None:
        """The journal has it."""
        if len(self._told) >= _MOST_TOLD:
            self._told.clear()
        self._told.add(facts.digest_of(standing))

    def refused(self, flow: Flow, code: str, full: frozenset[str]) -> None:
        """The decision on a request that goes nowhere, into the journal; not where that is `full`,
        for its room is for bills and who is refused would keep it so.
        """
        principal = flow.principal
        if not flow.decision or principal is None:
            return
        if principal.tenant.shard in full:
            self.unrecorded += 1
            return
        if self._too_many():
            return
        record = Record(
            flow.arrival.request_id,
            principal.tenant.id,
            principal.team_path,
            principal.key.id,
            flow.tags,
            facts.DECODER.decode(facts.refused(flow.decision, code)),
        )
        standing = self.standing(flow)

        def written(reply: Reply) -> None:
            if isinstance(reply, Exception):
                self.unrecorded += 1
            elif standing:
                self.told(standing)

        try:
            packed = facts.ENCODER.encode(record)
            self._holds.note(principal.tenant.shard, packed, standing, written)
        except StoreUnavailable:
            self.unrecorded += 1

    def _too_many(self) -> bool:
        second = clock.monotonic_us() // 1_000_000
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        if self._in_second <= REFUSALS_A_SECOND:
            return False
        self.unrecorded += 1
        return True

    def _recorder(self, route: Route) -> Recorder:
        return Recorder(
            Standing(
                model=route.model.name,
                timezone=route.timezone,
                documents=route.documents,
                policy=route.policy,
                bound=route.bound,
                shadow=route.shadow,
                candidates=route.panel.candidates,
                gateway_jurisdictions=self._jurisdictions,
            )
        )
