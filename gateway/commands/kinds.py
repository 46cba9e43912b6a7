"""What each kind of apply document is: how it is written in the API's fields, what tells one object
from another, and when what is there is what is wanted.
"""

import ipaddress
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, get_type_hints

import msgspec

from billing.service_tiers import ServiceTier
from billing.tco import Profile
from gateway import clock
from gateway.admin import bodies
from gateway.admin.backends import Backend
from gateway.admin.breakers import LoopBreaker
from gateway.admin.budgets import Budget
from gateway.admin.commitments import CommitmentBody
from gateway.admin.discounts import Discount
from gateway.admin.grants import Grant
from gateway.admin.keys import Key
from gateway.admin.limits import Limit
from gateway.admin.models import Model
from gateway.admin.prices import Price
from gateway.admin.tco import Tco, resolved
from gateway.admin.teams import Team
from gateway.admin.tenants import Tenant
from gateway.commands.names import Names, UnknownNameError
from gateway.commands.pricing import APPROVED
from gateway.stores.sql.rows import plain_decimal
from policies.document import canonical, load, parse
from policies.fields import FIELDS

Fields = dict[str, Any]

BODIES: Final[dict[str, type[msgspec.Struct]]] = {
    "tenant": Tenant,
    "team": Team,
    "key": Key,
    "backend": Backend,
    "model": Model,
    "price": Price,
    "discount": Discount,
    "commitment": CommitmentBody,
    "budget": Budget,
    "grant": Grant,
    "limit": Limit,
    "loop-breaker": LoopBreaker,
}
_SCOPED: Final = ("policy", "budget", "grant", "limit", "loop-breaker")
_EXACT: Final = (
    *("amount", "amount_per_million", "amount_per_minute", "percent", "markup", "bytes_factor"),
    *("overage_percent", "rollover_percent"),
)
_EXACT_TCO: Final = tuple(
    name for name, kind in get_type_hints(Profile).items() if kind in (str, str | None)
)
_UNCOMPARED: Final = {
    # when a tco began is a fact of one installation: given, it is sent with another tco
    "backend": ("credential", "tco_effective_from"),
    "budget": ("currency",),
}
_SETS: Final = ("jurisdictions", "data_classes", "tag_names", "capabilities")


def written(kind: str, fields: Mapping[str, Any], names: Names) -> Fields:
    """The document in the API's own fields: ids for names, decimals as text.

    UnknownNameError when a name is nobody's.
    """
    body = dict(fields) | _texts(fields, _EXACT)
    if kind in _SCOPED and isinstance(body.get("scope"), Mapping):
        body["scope"] = names.scope(body["scope"])
    rewrite = _REWRITES.get(kind)
    return body if rewrite is None else rewrite(body, names)


def _team(body: Fields, names: Names) -> Fields:
    tenant = body.pop("tenant", None)
    if tenant is not None:
        body["tenant_id"] = names.tenant(tenant)
    parent = body.pop("parent", None)
    if parent is not None:
        body["parent_id"] = names.team(parent, body.get("tenant_id"))
    return body


def _key(body: Fields, names: Names) -> Fields:
    tenant, team = body.pop("tenant", None), body.pop("team", None)
    if team is not None:
        body["team_id"] = names.team(team, tenant)
    return body


def _model(body: Fields, names: Names) -> Fields:
    targets = body.get("targets")
    if isinstance(targets, list) and all(isinstance(each, dict) for each in targets):
        body["targets"] = [_target(dict(each), names) for each in targets]
    return body


def _target(target: Fields, names: Names) -> Fields:
    backend = target.pop("backend", None)
    return target if backend is None else {"backend_id": names.backend(backend)} | target


def _price(body: Fields, names: Names) -> Fields:
    tenant, backend = body.pop("tenant", None), body.pop("backend", None)
    if tenant is not None:
        body["tenant_id"] = names.tenant(tenant)
    if backend is not None:
        body["backend_id"] = names.backend(backend)
    _write_tiers(body, "context_tiers")
    if isinstance(body.get("quantity_tiers"), Mapping):
        body["quantity_tiers"] = dict(body["quantity_tiers"])
        _write_tiers(body["quantity_tiers"], "tiers")
    return body


def _of_tenant(body: Fields, names: Names) -> Fields:
    tenant = body.pop("tenant", None)
    return body if tenant is None else {"tenant_id": names.tenant(tenant)} | body


def _write_tiers(holder: Fields, name: str) -> None:
    tiers = holder.get(name)
    if isinstance(tiers, list) and all(isinstance(each, dict) for each in tiers):
        holder[name] = [each | _texts(each, _EXACT) for each in tiers]


def _grant(body: Fields, names: Names) -> Fields:
    """Of the budget of a scope and period; of the month's, where no period is named."""
    scope, period = body.pop("scope", None), body.pop("period", "month")
    if scope is not None:
        body["budget_id"] = names.budget(scope, period)
    spelled = zip(("amount", "until"), _granted(body), strict=True)
    return body | {name: value for name, value in spelled if value is not None}


def _policy(body: Fields, names: Names) -> Fields:
    weights = body.get("weights")
    if isinstance(weights, Mapping):
        body["weights"] = {names.backend(name): each for name, each in weights.items()}
    return with_payer(body, names.scope)


def with_payer(body: Fields, called: Callable[[Mapping[str, Any]], Any]) -> Fields:
    """The policy with whoever pays for its shadow called otherwise; without the shadow, where
    `called` answers None.
    """
    experiment = body.get("experiment")
    shadow = experiment.get("shadow") if isinstance(experiment, Mapping) else None
    payer = shadow.get("payer") if isinstance(shadow, Mapping) else None
    if not isinstance(experiment, Mapping) or not isinstance(payer, Mapping):
        return body
    told = {name: each for name, each in experiment.items() if name != "shadow"}
    if (payer := called(payer)) is not None:
        return body | {"experiment": told | {"shadow": {**(shadow or {}), "payer": payer}}}
    if "split" in told:
        return body | {"experiment": told}
    return {name: each for name, each in body.items() if name != "experiment"}


def _backend(body: Fields, _names: Names) -> Fields:
    """`credential: {env: NAME}` keeps the secret out of the file."""
    credential = body.get("credential")
    if isinstance(credential, Mapping):
        variable = str(credential.get("env", ""))
        if set(credential) != {"env"} or variable not in os.environ:
            raise UnknownNameError(f"credential: the environment has no variable {variable!r}")
        body["credential"] = os.environ[variable]
    if isinstance(body.get("tco"), Mapping):
        body["tco"] = dict(body["tco"]) | _texts(body["tco"], _EXACT_TCO)
    return body


def _texts(fields: Mapping[str, Any], names: Iterable[str]) -> Fields:
    """Exact decimals are text to the API; a document may have whole ones as numbers."""
    return {name: str(fields[name]) for name in names if isinstance(fields.get(name), int)}


_REWRITES: Final[dict[str, Callable[[Fields, Names], Fields]]] = {
    "team": _team,
    "key": _key,
    "model": _model,
    "price": _price,
    "discount": _of_tenant,
    "commitment": _of_tenant,
    "policy": _policy,
    "grant": _grant,
    "backend": _backend,
}


def identity(kind: str, body: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells one object of a kind from another. That of a price or discount does not hold its
    date; of commitments one begins on a day, and drafts.
    """
    scope = tuple(sorted((body.get("scope") or {}).items()))
    match kind:
        case "team":
            return (body.get("tenant_id"), body.get("name"))
        case "key":
            return (body.get("team_id"), body.get("name"))
        case "policy":
            return (scope, body.get("name"))
        case "budget":
            return (scope, body.get("period"))
        case "grant":
            return (body.get("budget_id"), *_granted(body))
        case "limit" | "loop-breaker":
            return (scope,)
        case "discount":
            return tuple(body.get(name) for name in ("tenant_id", "model", "meter"))
        case "commitment":
            return (body.get("tenant_id"), body.get("first_day"))
        case "price":
            subject = ("book", "model", "tenant_id", "backend_id", "upstream_model", "meter")
            tier = body.get("service_tier") or ServiceTier.STANDARD.value
            return (*(body.get(name) for name in (*subject, "currency")), tier)
        case _:
            return (body.get("name"),)


def _granted(body: Mapping[str, Any]) -> tuple[Any, Any]:
    """How much until when, in one spelling."""
    amount, until = body.get("amount"), body.get("until")
    if isinstance(until, str):
        with suppress(ValueError):
            until = clock.rfc3339(clock.parse_rfc3339(until))
    return plain_decimal(amount) if isinstance(amount, str) else amount, until


def _tco(full: Fields) -> Fields:
    """A box that is named stands for its figures, as the API keeps them."""
    given = full["tco"]
    return {"tco": given and msgspec.to_builtins(resolved(msgspec.convert(given, Tco)))}


def _tiers(full: Fields) -> Fields:
    """Amounts of tiers in one spelling."""
    by_quantity = full["quantity_tiers"]
    return {
        "context_tiers": _plain(full["context_tiers"]),
        "quantity_tiers": by_quantity and by_quantity | {"tiers": _plain(by_quantity["tiers"])},
    }


def _plain(tiers: Iterable[Fields]) -> list[Fields]:
    return [
        tier | {"amount_per_million": plain_decimal(tier["amount_per_million"])} for tier in tiers
    ]


_AGREED: Final = ("amount", "overage_percent", "rollover_percent")
_SPELLINGS: Final[dict[str, Callable[[Fields], Fields]]] = {
    "backend": _tco,
    "grant": lambda full: dict(zip(("amount", "until"), _granted(full), strict=True)),
    "price": lambda full: {"state": full["state"] or APPROVED} | _tiers(full),
    "discount": lambda full: {
        "state": full["state"] or APPROVED,
        "percent": plain_decimal(full["percent"]),
    },
    "commitment": lambda full: {
        "state": full["state"] or APPROVED,
        **{name: plain_decimal(full[name]) for name in _AGREED},
    },
    "loop-breaker": lambda full: {"amount_per_minute": plain_decimal(full["amount_per_minute"])},
}


def comparable(kind: str, body: Mapping[str, Any]) -> Fields:
    """Every field with its default, in the one spelling that the API keeps. ProblemError or, of a
    policy, DocumentError when the document has not the form of its kind.
    """
    if kind == "policy":
        return dict(msgspec.json.decode(canonical(parse(dict(body)))))
    full: Fields = msgspec.to_builtins(bodies.convert(body, BODIES[kind]))
    for name in _UNCOMPARED.get(kind, ()):
        full.pop(name, None)
    spelled = _SPELLINGS.get(kind)
    if spelled is not None:
        full |= spelled(full)
    for name in _SETS:
        if full.get(name):
            full[name] = sorted(full[name])
    if "base_url" in full:
        full["base_url"] = full["base_url"].rstrip("/")
    for name in ("expires_at", "effective_from"):
        if full.get(name):
            with suppress(ValueError):
                full[name] = clock.rfc3339(clock.parse_rfc3339(full[name]))
    if kind == "key" and full["scopes"]["cidrs"]:
        with suppress(ValueError):
            full["scopes"]["cidrs"] = [
                str(ipaddress.ip_network(n)) for n in full["scopes"]["cidrs"]
            ]
    return full


def shown(kind: str, view: Mapping[str, Any]) -> Fields:
    """What the API answers, as `comparable` would have it."""
    if kind == "policy":
        known = {name: view[name] for name in _POLICY_FIELDS if name in view}
        return dict(msgspec.json.decode(canonical(load(msgspec.json.encode(known)))))
    names = set(BODIES[kind].__struct_fields__)
    return comparable(kind, {name: value for name, value in view.items() if name in names})


_POLICY_FIELDS: Final = ("scope", *dict.fromkeys(field.path.split(".")[0] for field in FIELDS))
