"""Random topologies with policies and requests: a town has backends of all kinds under all laws,
one tenant with nested teams and a key, models that share the backends, documents on every scope. A
second key, `lab`, in the outer team, tries out a model that nobody asks for: shadows go there.
"""

from random import Random
from typing import Any

import msgspec

NAMES = ("EU", "EEA", "EU@2020-02-01", "DE", "FR", "IE", "NO", "CH", "US", "GB")
LABELS = (*NAMES, "DE", "DE", "US", "Germany", "*")
PLACEMENTS = ("cloud", "edge", "on_prem")
CLASSES = ("health", "personal")
SCOPES = ("tenant", "team", "squad", "key")
LABS = ("tenant", "team", "lab")  # the scopes above the key that pays for shadows
MODELS = ("chat", "small", "large")
# What a backend does with a request; `down` has nobody listening.
BEHAVIOURS = (
    "serves", "serves", "serves", "slow", "slow", "busy", "busy", "down", "broken", "cuts",
    "garbage", "stalls", "silent",
)  # fmt: skip


class Site(msgspec.Struct, frozen=True):
    """A backend."""

    id: str
    jurisdictions: tuple[str, ...]
    placement: str
    data_classes: tuple[str, ...]
    behaviour: str
    cost: int  # per million tokens
    weight: int


class Ask(msgspec.Struct, frozen=True):
    """A request. `leaves_after_ms`: when its client does, if it does."""

    id: str
    model: str
    stream: bool
    tags: dict[str, str]
    leaves_after_ms: int | None


class Town(msgspec.Struct, frozen=True):
    """`documents` have a `scope` out of SCOPES, or `lab`. `dear` models are beyond any budget.
    `mirror` is the model that only shadows go to.
    """

    id: str
    gateway: tuple[str, ...]
    sites: tuple[Site, ...]
    models: dict[str, tuple[Site, ...]]
    documents: tuple[dict[str, Any], ...]
    dear: frozenset[str]
    asks: tuple[Ask, ...]
    mirror: str


def town(seed: int, gateway: tuple[str, ...]) -> Town:
    """Always the same for a seed."""
    dice = Random(seed)
    name = f"t{seed}"
    sites = tuple(_site(dice, f"{name}-b{number}") for number in range(dice.randint(2, 6)))
    models = {
        f"{name}-{model}": tuple(dice.sample(sites, dice.randint(1, len(sites))))
        for model in MODELS[: dice.randint(1, 3)]
    }
    asked, mirror = tuple(models), f"{name}-mirror"
    models[mirror] = tuple(dice.sample(sites, dice.randint(1, len(sites))))
    count = dice.randint(1, 5)
    documents = tuple(_document(dice, f"p{number}", asked, mirror) for number in range(count))
    return Town(
        id=name,
        gateway=gateway,
        sites=sites,
        models=models,
        documents=documents,
        dear=frozenset(model for model in models if dice.random() < 0.25),
        asks=tuple(_ask(dice, f"{name}-a{n}", asked) for n in range(dice.randint(1, 4))),
        mirror=mirror,
    )


def _site(dice: Random, name: str) -> Site:
    lawful = dice.random() < 0.5
    return Site(
        id=name,
        jurisdictions=("DE",) if lawful else tuple(dice.sample(LABELS, dice.randint(0, 2))),
        placement=dice.choice(PLACEMENTS),
        data_classes=tuple(each for each in CLASSES if dice.random() < 0.7),
        behaviour=dice.choice(BEHAVIOURS),
        cost=dice.randint(0, 3),
        weight=dice.randint(0, 3),
    )


def _document(dice: Random, name: str, models: tuple[str, ...], mirror: str) -> dict[str, Any]:
    written: dict[str, Any] = {"name": name, "scope": dice.choice((*SCOPES, "lab"))}
    match: dict[str, Any] = {}
    if dice.random() < 0.4:
        match["models"] = dice.sample((*models, mirror), dice.randint(1, len(models)))
    if dice.random() < 0.2:
        match["stream"] = dice.random() < 0.5
    tagged = dice.random() < 0.2
    if tagged:
        match["tags"] = {"env": dice.choice("ab")}
    require: dict[str, Any] = {}
    if dice.random() < 0.7:
        require["residency"] = dice.sample(NAMES, dice.randint(1, 3))
        if dice.random() < 0.7 and "DE" not in require["residency"]:
            require["residency"].append("DE")
    if dice.random() < 0.15:
        require["placements"] = dice.sample(PLACEMENTS, 2)
    if dice.random() < 0.15:
        require["data_classes"] = [dice.choice(CLASSES)]
    if dice.random() < 0.6:
        written["prefer"] = dice.choice(
            ["cheapest", "fastest", "balanced", "weighted", ["edge", "cloud"]]
        )
    if not tagged:
        _choices(dice, written, match, models)
        _shadow(dice, written, match, models, mirror)
    return written | ({"match": match} if match else {}) | ({"require": require} if require else {})


def _choices(
    dice: Random, written: dict[str, Any], match: dict[str, Any], models: tuple[str, ...]
) -> None:
    if dice.random() < 0.7:
        written["retries"] = {"max_attempts": dice.randint(2, 5)}
        if dice.random() < 0.7:
            written["retries"] |= {"hedge_after_ms": dice.choice([5, 15]), "hedge_percent": 100}
    if dice.random() < 0.5:
        written["budget"] = {"on_exhausted": {"degrade_to": dice.choice(models)}}
    if len(models) > 1 and dice.random() < 0.3:
        match.setdefault("models", [dice.choice(models)])
        weights = {model: dice.randint(1, 3) for model in dice.sample(models, 2)}
        written["experiment"] = {"name": "trial", "split": weights, "by": "tag:user"}


def _shadow(
    dice: Random,
    written: dict[str, Any],
    match: dict[str, Any],
    models: tuple[str, ...],
    mirror: str,
) -> None:
    if written["scope"] not in {"tenant", "team", "squad"} or dice.random() < 0.3:
        return
    if match.setdefault("models", list(models)) == [mirror]:
        return
    payer = {"key": mirror.replace("mirror", "lab")}
    shadow = {"model": mirror, "percent": 100, "payer": payer}
    trial = written.get("experiment", {"name": "trial", "by": "key"})
    written["experiment"] = trial | {"shadow": shadow}


def _ask(dice: Random, name: str, models: tuple[str, ...]) -> Ask:
    tags = {"user": str(dice.randint(0, 9))}
    if dice.random() < 0.5:
        tags["env"] = dice.choice("ab")
    leaves = dice.randint(1, 60) if dice.random() < 0.1 else None
    return Ask(name, dice.choice(models), dice.random() < 0.5, tags, leaves)
