"""From what is there to what the documents say, one step an object.

A step is planned only when the steps before it are done (or, in a dry run, imagined), because names
of new objects stand for ids that do not exist before.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from billing.service_tiers import ServiceTier
from gateway import ids, standing
from gateway.admin.policy_references import doubts
from gateway.admin.problems import ProblemError
from gateway.commands import kinds
from gateway.commands.documents import KINDS, NOUNS, Document, DocumentFault
from gateway.commands.names import Names, UnknownNameError
from gateway.commands.pricing import (
    DATED,
    ImmutablePriceError,
    imagined,
    same_price,
    settled,
    undated,
)
from gateway.commands.prune import USAGE, PruneRefusedError, doomed, reasons
from gateway.commands.rehearsal import Rehearsal, in_words
from gateway.commands.remote import Remote
from gateway.commands.standing import BarredError, holder
from gateway.program import typed
from gateway.stores.sql.rows import plain_decimal
from policies.document import DocumentError, parse

_PREFIXES: Final = {"budget": "bud", "limit": "lim", "loop-breaker": "breaker"}


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """One object and what happened, or would happen, to it."""

    action: str  # create | update | activate | unchanged | delete
    kind: str
    label: str
    id: str
    changes: tuple[tuple[str, Any, Any], ...] = ()  # (field, before, after)
    secret: str | None = None  # of a key that was just created
    warnings: tuple[str, ...] = ()
    note: str = ""  # what stays undone

    def lines(self) -> Iterator[str]:
        sign = {"create": "+", "delete": "-", "unchanged": "="}.get(self.action, "~")
        yield f"{sign} {self.kind} {self.label}: {self.action}"
        for field, before, after in self.changes:
            yield f"    {field}: {_json(before)} -> {_json(after)}"
        if self.note:
            yield f"    {self.note}"
        if self.secret is not None:
            yield f"    secret (shown this once): {self.secret}"


class Reconciler:
    """The objects as they are now, and the way to change them. `dry_run` only imagines changes."""

    def __init__(self, remote: Remote, *, dry_run: bool) -> None:
        self._remote = remote
        self._dry_run = dry_run
        self._holder = holder(remote)
        self._there = {kind: list(remote.all(NOUNS[kind])) for kind in KINDS}
        self._kept: set[str] = set()
        self._undated: set[tuple[str, tuple[Any, ...]]] = set()  # prices that begin when applied
        self._stands_in: frozenset[str] | None = None  # asked for when first needed
        self._broken: set[tuple[str, Any]] = set()  # kind and name
        self._rehearsal = Rehearsal(remote)
        self.names = Names(self._there)

    @property
    def unasked(self) -> bool:
        """Whether what was imagined is not what the API would say, for it could not be asked."""
        return self._rehearsal.unasked

    def apply(self, documents: Sequence[Document]) -> Iterator[Step]:
        """DocumentFault and RemoteError end it; the steps before that are done and stay. A dry run
        looks at all documents, and has the API judge what it would be asked, before it ends so.
        """
        faults: list[DocumentFault] = []
        for document in _parents_first(documents):
            try:
                step = self._apply(document)
            except DocumentFault as fault:
                if not self._dry_run:
                    raise
                faults.append(fault)
                step = None
            if step is None:
                self._broken.add((document.kind, document.fields.get("name")))
            else:
                yield step
        if self._dry_run:
            faults += self._rehearsal.play()
        if faults:
            raise DocumentFault.of_all(faults)

    def prune(self) -> Iterator[Step]:
        """Deletes what no document named, innermost first; history stays, and so does what the
        admin token has no right to.

        PruneRefusedError before the first of it when not everything can go.
        """
        found = doomed(self._there, self._kept)
        going = [each for each in found if self._holder.may(each[0], create=True)]
        refusals = [self._refusal(*each) for each in reasons(self._remote, self._there, going)]
        if refusals:
            raise PruneRefusedError(
                "\n  ".join(["nothing was deleted, for not all can be:", *refusals])
            )
        for kind, view in going:
            step = Step("delete", kind, self._label(kind, view), view["id"])
            if not self._dry_run:
                self._remote.call("DELETE", f"/{NOUNS[kind]}/{view['id']}")
            yield step

    def _refusal(self, kind: str, view: dict[str, Any], why: str | tuple[str, Any]) -> str:
        """One line: what cannot go, why, and what to do."""
        label = self._label(kind, view)
        if isinstance(why, tuple):
            referrer, other = why
            why = f"{referrer} {self._label(referrer, other)} refers to it"
            if referrer in DATED:
                why = f"{referrer}s that were in force refer to it"
            if other.get("revoked_at") is not None:
                why = f"{why}, though revoked"
        remedy = "name it in the documents"
        if kind == "key" and why == USAGE:
            remedy = f"{typed(f'key revoke {label}')} ends it and takes it out of the documents"
        return f"{kind} {label}: {why}; {remedy}"

    def _apply(self, document: Document) -> Step | None:
        """None: it names what is broken itself."""
        kind, fields = document.kind, dict(document.fields)
        activate = kind == "policy" and fields.pop("activate", False) is True
        found: list[str] = []
        inside = "scope" if isinstance(fields.get("scope"), dict) else ""
        with self.names.doubting(inside, self._broken) as doubts:
            try:
                body = kinds.written(kind, fields, self.names)
                wanted = kinds.comparable(kind, body)
            except UnknownNameError as fault:
                found = [str(fault)]
            except DocumentError as fault:
                found = [str(each) for each in fault.problems]
            except ProblemError as fault:
                found = in_words(fault.errors) or [fault.detail]
        if doubts.faults or found:
            raise document.fault(*doubts.faults, *found)
        if doubts.waits:
            return None
        self._rehearsal.document = document
        step = self._step(document, body, wanted, activate=activate)
        if kind != "policy":
            return step
        return msgspec.structs.replace(step, warnings=self._warnings(body, wanted))

    def _step(
        self, document: Document, body: dict[str, Any], wanted: dict[str, Any], *, activate: bool
    ) -> Step:
        kind = document.kind
        there = self._match(kind, body, wanted, activate=activate)
        if undated(kind, wanted):
            same = (kind, kinds.identity(kind, body))
            if same in self._undated:
                raise document.fault("the same object is described twice, both without a date")
            self._undated.add(same)
        if there is None:
            try:
                self._holder.require(kind, create=True)
            except BarredError as fault:
                raise document.fault(str(fault)) from fault
            return self._create(kind, body, activate=activate)
        if there["id"] in self._kept:
            raise document.fault("the same object is described twice")
        if there.get("revoked_at") is not None:
            other = "name" if kind == "key" else "time"
            raise document.fault(
                f"this {kind} was revoked for ever; give the new one another {other}"
            )
        self._kept.add(there["id"])
        try:
            return self._update(kind, there, body, wanted, activate=activate)
        except (ImmutablePriceError, BarredError) as fault:
            raise document.fault(str(fault)) from fault

    def _warnings(self, body: dict[str, Any], wanted: dict[str, Any]) -> tuple[str, ...]:
        """What a policy does, or would do, and can hardly be meant: as the API answers it."""
        models = {each["name"] for each in self._there["model"]}
        found = [said for name, said in doubts(parse(dict(body))) if name not in models]
        required = wanted.get("require", {}).get("residency")
        if required:
            if self._stands_in is None:
                status = self._remote.call("GET", "/status").json()
                self._stands_in = frozenset(status["jurisdictions"])
            found += filter(None, [standing.warning(required, self._stands_in)])
        return tuple(found)

    def _match(
        self, kind: str, body: dict[str, Any], wanted: dict[str, Any], *, activate: bool
    ) -> dict[str, Any] | None:
        same = kinds.identity(kind, body)
        found = [each for each in self._there[kind] if kinds.identity(kind, each) == same]
        if kind in DATED:
            return same_price(found, wanted, self._kept)
        if kind == "policy" and found and activate:
            return self._in_force(found[0])
        return found[0] if found else None

    def _in_force(self, policy: dict[str, Any]) -> dict[str, Any]:
        """The version that is active, where a newer one is only drafted."""
        version = policy["active_version"]
        if version in {None, policy["version"]}:
            return policy
        path = f"/policies/{policy['id']}"
        return dict(self._remote.call("GET", path, params={"version": version}).json())

    def _create(self, kind: str, body: dict[str, Any], *, activate: bool) -> Step:
        if self._dry_run:
            view = imagined(kinds.comparable(kind, body)) if kind in DATED else body
            view = view | {"id": ids.new(_PREFIXES.get(kind, kind))}
            if kind == "key":
                team = next(t for t in self._there["team"] if t["id"] == body["team_id"])
                view["tenant_id"] = team["tenant_id"]
            self._rehearsal.add("POST", f"/{NOUNS[kind]}", body, view["id"])
            if activate:
                self._rehearsal.add("POST", f"/policies/{view['id']}/activate")
        else:
            view = self._remote.call("POST", f"/{NOUNS[kind]}", body).json()
            if activate:
                self._remote.call("POST", f"/policies/{view['id']}/activate")
        self._there[kind].append(view)
        self._kept.add(view["id"])
        self.names.learn(kind, view)
        secret, draft = view.get("secret"), kind == "policy" and not activate
        note = _drafted(1, None) if draft else ""
        label = self._label(kind, view)
        return Step("create", kind, label, view["id"], secret=secret, note=note)

    def _update(
        self,
        kind: str,
        there: dict[str, Any],
        body: dict[str, Any],
        wanted: dict[str, Any],
        *,
        activate: bool,
    ) -> Step:
        now = kinds.shown(kind, there)
        if kind in DATED:
            wanted = settled(now, wanted)
            body = {name: value for name, value in wanted.items() if name != "state"}
        changes = _changes(now, wanted)
        if body.get("credential") is not None:
            changes = (*changes, ("credential", None, "(kept secret)"))
        must_activate = activate and (bool(changes) or there["state"] != "active")
        label, note = self._label(kind, there), ""
        if kind == "policy" and not activate:
            note = _note(there, drafts=bool(changes))
        if not changes and not must_activate:
            return Step("unchanged", kind, label, there["id"], note=note)
        self._holder.require(kind, create=False)
        rewritten = any(name != "state" for name, _, _ in changes)
        self._change(kind, there, body if rewritten else None, activate=must_activate)
        if kind in DATED and wanted["state"] != now["state"]:
            self._do("POST", f"/{NOUNS[kind]}/{there['id']}/approve")
        if kind in {"team", "model"}:
            there.update(wanted)  # what refers to what decides what can be pruned
        if note and there["active_version"] is not None:
            changes = _changes(kinds.shown(kind, self._in_force(there)), wanted)
        action = "update" if changes or note else "activate"
        return Step(action, kind, label, there["id"], changes, note=note)

    def _change(
        self, kind: str, there: dict[str, Any], body: dict[str, Any] | None, *, activate: bool
    ) -> None:
        path = f"/{NOUNS[kind]}/{there['id']}"
        if body is not None and self._dry_run:
            self._rehearsal.add("PUT", path, body)
        elif body is not None:
            etag = self._remote.call("GET", path).headers["etag"]
            self._remote.call("PUT", path, body, {"if-match": etag})
        if activate:
            self._do("POST", f"{path}/activate")

    def _do(self, method: str, path: str) -> None:
        if self._dry_run:
            self._rehearsal.add(method, path)
        else:
            self._remote.call(method, path)

    def _label(self, kind: str, view: dict[str, Any]) -> str:
        return label(self.names, kind, view)


def label(names: Names, kind: str, view: dict[str, Any]) -> str:
    """`acme/core/app`; what is attached to a scope stands after it."""
    if kind in {"tenant", "team", "key"}:
        return "/".join(names.path(kind, view["id"]).values())
    if kind in {"policy", "budget", "limit", "loop-breaker"}:
        ((scope_kind, scope_id),) = view["scope"].items()
        path = "/".join(names.path(scope_kind, scope_id).values())
        own = view.get("name") or view.get("period")
        return f"{path} {own}" if own else path
    if kind == "grant":
        of = label(names, "budget", dict(names.of(view["budget_id"])))
        return f"{of} +{view['amount']} until {view['until']}"
    if kind == "commitment":
        said = f"{plain_decimal(view['amount'])} a {view['term']} from {view['first_day']}"
        return f"{names.name(view['tenant_id'])} {said}"
    if kind == "discount":
        whose = (names.name(view["tenant_id"]), view.get("model"), view.get("meter"))
        return " ".join([*filter(None, whose), f"{view['percent']} %"])
    if kind == "price":
        backend = names.name(view["backend_id"]) if view.get("backend_id") else None
        tenant = names.name(view["tenant_id"]) if view.get("tenant_id") else None
        parts = (view["book"], tenant, view.get("model"), backend, view.get("upstream_model"))
        tier = view.get("service_tier")
        if tier == ServiceTier.STANDARD:
            tier = None  # as nearly all prices are
        return " ".join(filter(None, (*parts, view["meter"], tier)))
    return str(view["name"])


def _note(policy: dict[str, Any], *, drafts: bool) -> str:
    """What a document without `activate` leaves as it is; empty where its version is in force."""
    version = policy["version"] + (1 if drafts else 0)
    return (
        "" if policy["active_version"] == version else _drafted(version, policy["active_version"])
    )


def _drafted(version: int, active: int | None) -> str:
    stays = "nothing is in force by it" if active is None else f"version {active} stays in force"
    return (
        f"version {version} is a draft: {stays}; `activate: true` in the document, or "
        f"{typed('policy activate')}, puts it in force"
    )


def _changes(before: dict[str, Any], after: dict[str, Any]) -> tuple[tuple[str, Any, Any], ...]:
    names = dict.fromkeys([*after, *before])
    return tuple(
        (name, before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    )


def _parents_first(documents: Sequence[Document]) -> list[Document]:
    """Teams after the teams they are in; all else as it comes."""
    teams = [each for each in documents if each.kind == "team"]
    ordered: list[Document] = []
    while teams:
        waiting = {(each.fields.get("tenant"), each.fields.get("name")) for each in teams}
        ready = [
            t for t in teams if (t.fields.get("tenant"), t.fields.get("parent")) not in waiting
        ]
        if not ready:
            raise teams[0].fault("these teams are inside one another")
        ordered += ready
        teams = [each for each in teams if each not in ready]
    first = [each for each in documents if each.kind == "tenant"]
    rest = [each for each in documents if each.kind not in {"tenant", "team"}]
    return [*first, *ordered, *rest]


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
