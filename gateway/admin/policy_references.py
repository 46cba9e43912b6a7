"""What a policy names besides its scope: backends, who pays for a shadow, and models.

Backends and payers must be there when it is written. Models may come and go, so they are only
warned of.
"""

from sqlalchemy import Connection

from gateway.admin.problems import invalid
from gateway.stores.sql import backends, keys, teams
from gateway.stores.sql.rows import Key
from policies.document import PolicyDocument

PAYER = "experiment.shadow.payer"


def require_known(connection: Connection, document: PolicyDocument) -> None:
    """422 for a backend that is not there, or somebody who cannot be made to pay."""
    for backend_id in document.weights or ():
        if not backends.RECORDS.exists(connection, id=backend_id):
            raise invalid("weights", f"there is no backend {backend_id!r}")
    trial = document.trial
    if trial is None or trial.shadow is None:
        return
    payer = trial.shadow.payer
    key = keys.RECORDS.one(connection, id=payer)
    live = key is not None and key.revoked_at_us is None
    # One answer for what is not there and what is somebody else's: else ids could be tried.
    if (
        key is None
        or not live
        or not trial.shadow.may_pay(key.tenant_id, _team_path(connection, key))
    ):
        raise invalid(
            PAYER,
            f"there is no live key {payer!r} below the scope of this policy",
            "name the experiment's own key, of this policy's tenant or team: nobody can have"
            " others pay",
        )


def _team_path(connection: Connection, key: Key) -> list[str]:
    own = teams.RECORDS.one(connection, id=key.team_id)
    return [] if own is None else [own.id, *(each.id for each in teams.ancestors(connection, own))]


def doubts(document: PolicyDocument) -> list[tuple[str, str]]:
    """The models that it names, and what comes of each where there is none of that name."""
    found: list[tuple[str, str]] = []
    for model in document.models or ():
        said = (
            f"match.models names {model!r}, and there is no model of that name: the policy applies"
            " to no request because of it"
        )
        found.append((model, said))
    trial = document.trial
    for model, _ in () if trial is None else trial.split:
        said = (
            f"experiment.split gives requests to {model!r}, and there is no model of that name:"
            " they are served by the model that was asked for"
        )
        found.append((model, said))
    if trial is not None and trial.shadow is not None:
        model = trial.shadow.model
        said = (
            f"experiment.shadow sends requests to {model!r}, and there is no model of that name:"
            " nothing is sent a second time"
        )
        found.append((model, said))
    if isinstance(document.on_exhausted, dict):
        model = document.on_exhausted["degrade_to"]
        said = (
            f"budget.on_exhausted degrades to {model!r}, and there is no model of that name: a"
            " request that no budget covers is refused"
        )
        found.append((model, said))
    return found
