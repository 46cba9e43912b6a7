"""Valid values of the policies library; a test names only what it is about."""

from typing import Any

import msgspec

from policies.ask import Ask
from policies.candidates import Candidate, Live
from policies.document import PolicyDocument, parse
from policies.filters import Case, case_of
from policies.objectives import Objective
from policies.residency import expand

GATEWAY = frozenset({"DE"})

_ASK = Ask(
    model="chat-default",
    operation="chat",
    capabilities=frozenset({"chat"}),
    stream=True,
    input_bound=1_000,
    input_estimate=250,
    output_wanted=100,
    choices=1,
)

_CANDIDATE = Candidate(
    backend_id="bk_eu",
    upstream_model="smollm2",
    region="eu-central",
    jurisdictions=frozenset({"DE"}),
    placement="on_prem",
    capabilities=frozenset({"chat", "tools"}),
    context_window=8_192,
    weight=1,
    cost_input_picos=1_000_000,
    cost_output_picos=4_000_000,
    charge_input_picos=2_000_000,
    charge_output_picos=8_000_000,
    max_concurrency=None,
)


def an_ask(**changes: Any) -> Ask:
    return msgspec.structs.replace(_ASK, **changes)


def a_candidate(backend_id: str = "bk_eu", **changes: Any) -> Candidate:
    return msgspec.structs.replace(_CANDIDATE, backend_id=backend_id, **changes)


def a_document(**sections: Any) -> PolicyDocument:
    return parse({"name": "a-policy", "scope": {"team": "team_1"}} | sections)


def a_case(policy: Any, **changes: Any) -> Case:
    return case_of(policy, an_ask(**changes), GATEWAY)


def seen_as(**live: Live) -> dict[tuple[str, str], Live]:
    """Live figures by backend id, for candidates of the built-in upstream model."""
    return {
        (backend_id, _CANDIDATE.upstream_model): figures for backend_id, figures in live.items()
    }


def quick(**most_us: int) -> tuple[Objective, ...]:
    """Objectives at the usual percentile and window: `quick(ttft=800_000)`."""
    return tuple(Objective(metric, most) for metric, most in most_us.items())


def only(*names: str) -> frozenset[str]:
    """A permitted set as compiling makes it."""
    return expand(names)
