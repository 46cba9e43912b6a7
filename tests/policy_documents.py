"""Policy documents as Hypothesis makes them: every field, and values of every kind that stands."""

from typing import Any

from hypothesis import strategies as st

from policies.compile import Scoped
from policies.document import parse

PLACES = ["EU", "EEA", "DE", "FR", "NO", "CH", "US", "GB"]
PLACEMENTS = ["on_prem", "edge", "cloud", "workstation"]
MODELS = ["chat-default", "chat-small"]
DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def subset(words: list[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(words), min_size=1, unique=True)


def section(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


AMOUNTS = st.sampled_from(["0", "0.001", "0.05", "2.5", "15.00"])
MS = st.integers(1, 5_000)
TOKENS = st.integers(1, 64)
TAG_VALUES = st.sampled_from(["a", "b", "c d"])

TAGS = st.dictionaries(
    st.sampled_from(["env", "job"]), TAG_VALUES | subset(["a", "b", "c d"]), min_size=1
)
HOURS = section(
    **{"from": st.sampled_from(["00:00", "08:30", "18:00"])},
    to=st.sampled_from(["06:15", "17:59", "24:00"]),
    days=subset(DAYS),
).filter(lambda hours: hours and hours != {"from": "00:00", "to": "24:00"} | hours)
SIZES = st.sampled_from(
    [{"at_least": 10}, {"at_most": 250}, {"at_least": 0, "at_most": 249}, {"at_least": 250}]
)

REQUIRE = section(
    residency=subset(PLACES),
    capabilities=subset(["tools", "vision"]),
    placements=subset(PLACEMENTS),
    data_classes=subset(["health", "payment"]),
    max_context=st.sampled_from([100, 8_192, 32_000]),
)
OBJECTIVES = {
    "ttft_p95_ms": MS,
    "tpot_p95_ms": MS,
    "total_p95_ms": MS,
    "on_no_data": st.sampled_from(["allow", "avoid", "refuse"]),
    "on_breach": st.sampled_from(["prefer_faster", "shed", "refuse"]),
}
SLO = section(**OBJECTIVES) | st.fixed_dictionaries(
    {"ttft_p95_ms": MS},
    optional={name: each for name, each in OBJECTIVES.items() if name != "ttft_p95_ms"}
    | {"percentile": st.sampled_from([50, 99]), "window_s": st.sampled_from([20, 60])},
)
COST = section(
    max_per_request=AMOUNTS,
    max_input_per_million=AMOUNTS,
    max_output_per_million=AMOUNTS,
    max_per_team_hour=AMOUNTS,
)
NARROWING = {
    "require": REQUIRE,
    "slo": SLO,
    "cost": COST,
    "prefer": st.sampled_from(["cheapest", "fastest", "balanced", "weighted", ["edge", "cloud"]]),
    "affinity": st.sampled_from(["off", "prefix"]),
    "weights": st.dictionaries(
        st.sampled_from(["bk_1", "bk_2", "bk_4"]), st.integers(0, 9), min_size=1
    ),
    "priority": st.integers(1, 9),
}
OTHERS = {
    "budget": section(
        hold=st.sampled_from(["full", "sliced"]),
        slice=st.integers(16, 2_000),
        on_exhausted=st.sampled_from(["refuse", {"degrade_to": "s"}, {"degrade_to": "xs"}]),
        clamp=st.sampled_from(["on", "off", True, False]),
        least_output=TOKENS,
        default_output=st.integers(64, 4_096),
    ),
    "idempotency": section(
        store_answers=st.sampled_from(["on", "off", True, False]),
        keep_seconds=st.integers(1, 86_400),
    ),
    "experiment": st.fixed_dictionaries(
        {
            "name": st.sampled_from(["trial", "trial-2"]),
        },
        optional={
            "by": st.sampled_from(["key", "tag:user"]),
            "split": st.fixed_dictionaries(
                {"chat-default": st.integers(1, 9), "chat-small": st.integers(1, 9)}
            ),
            "shadow": st.fixed_dictionaries(
                {
                    "model": st.sampled_from(["chat-next", "chat-small"]),
                    "percent": st.integers(1, 100),
                    "payer": st.fixed_dictionaries({"key": st.sampled_from(["k1", "k2"])}),
                }
            ),
        },
    ).filter(lambda experiment: {"split", "shadow"} & set(experiment)),
    "retries": section(
        max_attempts=st.integers(1, 10),
        hedge_after_ms=st.none() | MS,
        hedge_percent=st.integers(0, 100),
    ).filter(lambda retries: retries.get("max_attempts") != 1 or not retries.get("hedge_after_ms")),
}
FACETS = {"models": subset(MODELS), "hours": HOURS, "stream": st.booleans(), "input_tokens": SIZES}


def _written(sections: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"name": st.sampled_from("abcdef")}, optional=sections).map(_whole)


def _whole(written: dict[str, Any]) -> dict[str, Any]:
    """With its scope, and with the model that an experiment is about; another one is its shadow."""
    if "experiment" in written:
        match = {"models": ["chat-default"]} | written.get("match", {})
        written = written | {"match": match}
        shadow = written["experiment"].get("shadow")
        if shadow is not None and list(match["models"]) == [shadow["model"]]:
            experiment = written["experiment"] | {"shadow": shadow | {"model": "chat-other"}}
            written |= {"experiment": experiment}
    return written | {"scope": {"team": "team_1"}}


PLAIN = _written({"match": section(models=subset(MODELS))} | NARROWING | OTHERS)
ASKING = _written({"match": section(**FACETS)} | NARROWING | OTHERS)
TAGGED = _written({"match": section(**FACETS, tags=TAGS)} | NARROWING)
DOCUMENTS = PLAIN | ASKING | TAGGED


@st.composite
def scoped(draw: st.DrawFn, documents: st.SearchStrategy[dict[str, Any]] = PLAIN) -> Scoped:
    document = parse(draw(documents))
    kind, depth = draw(st.sampled_from([("tenant", 0), ("team", 1), ("team", 2), ("key", 1_000)]))
    return kind, depth, document.name, document
