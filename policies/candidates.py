"""The places a request could go: what is configured about each, and what is seen of it live."""

import msgspec


class Candidate(msgspec.Struct, frozen=True):
    """One backend serving one model, from the snapshot. Prices are picos per token."""

    backend_id: str
    upstream_model: str
    region: str
    jurisdictions: frozenset[str]  # every law that can reach the data; empty = unknown
    placement: str  # cloud | edge | on_prem | workstation
    capabilities: frozenset[str]
    context_window: int | None
    weight: int
    cost_input_picos: int | None  # None: no cost price known
    cost_output_picos: int | None
    charge_input_picos: int | None  # worst input meter; None: unpriced
    charge_output_picos: int | None
    max_concurrency: int | None
    data_classes: frozenset[str] = frozenset()  # the kinds of data it is cleared for


class Gauges(msgspec.Struct, frozen=True, array_like=True):
    """What a backend says of its load. None: it does not say."""

    waiting: int | None = None  # requests in its queue
    cache_permille: int | None = None  # of its key-value cache in use


class Live(msgspec.Struct, array_like=True):
    """What is seen of a candidate right now. Times in microseconds. Kept with decisions:
    new fields go to the end, with a default.
    """

    available: bool = True  # breaker closed, or half open with a probe to spare
    in_flight: int = 0
    in_flight_tokens: int = 0
    ttft_p95_us: int | None = None  # None: too few samples in the window
    tpot_p95_us: int | None = None
    total_p95_us: int | None = None
    others: dict[str, int | None] = {}  # by objectives.View
    samples: int = 0
    ttft_ewma_us: int = 0
    share: int = 1_000  # thousandths of its traffic that it takes: 0 while ejected, then growing
    room: int | None = None  # requests of this worker that it takes well; None: no trouble so far
    rest_ms: int = 0  # for how long it has asked to be left alone
    waiting: int | None = None  # requests queued at the backend, as it says; None: it does not
    cache_permille: int | None = None  # of its key-value cache in use, as it says
