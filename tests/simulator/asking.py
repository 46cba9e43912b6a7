"""What a client asks for, and the flow that a worker makes of it before it asks the store."""

from typing import Any, Final

import msgspec

from gateway.dataplane.arrival import Arrival
from gateway.dataplane.flow import Flow
from gateway.dataplane.quote import quote
from gateway.dataplane.snapshot import Snapshot
from gateway.stores.redis import keys
from policies.ask import Ask
from policies.idempotency import Ticket
from policies.route import Plan
from tests.simulator import house
from tests.simulator.store import TAG

TYPICAL_OUTPUT: Final = 256
TICKET_MS: Final = 3_600_000
MOST_TICKETS: Final = 60


class Request(msgspec.Struct, frozen=True):
    """What a client asks for. `tokens` is the true size of its prompt; `once`: its idempotency key,
    empty where it has none, and `body` what it would be done for.
    """

    id: str
    key: str
    tokens: int
    wanted: int
    least: int
    streams: bool
    once: str = ""
    body: str = ""


def arrived(request: Request, snapshot: Snapshot, now_us: int, offset_us: int) -> Flow:
    """Who asks, and since when."""
    arrival = Arrival(
        request_id=request.id,
        arrived_us=now_us + offset_us,
        clock_offset_ns=offset_us * 1000,
        secret=b"",
        content_length=0,
        content_encoding=b"",
        traceparent=b"",
        tags=b"",
        explain=False,
        client_host="",
    )
    flow = Flow(arrival=arrival, trace=None, operation="chat", route_path="")
    flow.principal = house.principal(snapshot, request.key)
    flow.levels = snapshot.levels(flow.principal)
    if request.once:
        flow.ticket = ticket(request)
    return flow


def plan(flow: Flow, request: Request, snapshot: Snapshot, model: str, **how: Any) -> None:
    """Where it may go and what it may cost. `turn`: which backend is asked first; `slice`: output
    tokens by which a stream's hold grows.
    """
    principal, turn = flow.principal, how["turn"]
    flow.route = route = snapshot.route(principal, model, flow.arrival.arrived_us)
    flow.ask = Ask(
        model=model,
        operation="chat",
        capabilities=frozenset(),
        stream=request.streams,
        input_bound=request.tokens * 13 // 10 + 8,
        input_estimate=request.tokens,
        output_wanted=request.wanted,
        choices=1,
    )
    candidates = tuple(way.candidate for way in route.ways.values())
    turn %= len(candidates)
    flow.plan = Plan(candidates[turn:] + candidates[:turn], ())
    terms = quote(flow.ask, flow.plan, route, principal.tenant.currency, in_slices=False)
    sliced = how["slice"] if request.streams else 0
    first = min(terms.wanted, max(sliced, request.least)) if sliced else terms.wanted
    flow.quote = msgspec.structs.replace(terms, first=first, least=request.least)
    flow.estimated_tokens = flow.ask.input_estimate + min(terms.wanted, TYPICAL_OUTPUT)


def ticket(request: Request) -> Ticket:
    return Ticket(
        index=keys.tickets(TAG, f"key_{request.key}"),
        name=request.once.rjust(32, "0"),
        fingerprint=request.body.rjust(32, "0"),
        ttl_ms=TICKET_MS,
        most=MOST_TICKETS,
    )
