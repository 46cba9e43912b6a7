"""`meterhouse policy activate|shadow|retire|rollback`: which version of a policy is in force."""

import argparse
from typing import Any, Final

_STEPS: Final = {
    "activate": "put a version in force; the one before it retires",
    "shadow": "let a version decide without effect",
    "retire": "take the version in force out of it",
    "rollback": "put the version in force that was so before",
}


def add(verbs: "argparse._SubParsersAction[Any]") -> None:
    for verb, does in _STEPS.items():
        step = verbs.add_parser(verb, help=does)
        step.add_argument("policy", help="id, or the policy's name where it is the only one of it")
        if verb != "rollback":
            newest = "the one in force" if verb == "retire" else "the newest, drafts included"
            step.add_argument("--version", type=int, help=f"left out: {newest}")
        step.add_argument("--reason", help="kept in the policy's history")
        step.add_argument("--json", action="store_true", help="for machines")


def take(args: argparse.Namespace, remote: Any) -> dict[str, Any]:
    """The policy after the step."""
    path = f"/policies/{policy_id(args.policy, remote)}"
    body = {"reason": args.reason}
    if args.verb == "rollback":
        body["version"] = _before(remote.call("GET", path).json())
        return dict(remote.call("POST", f"{path}/activate", body).json())
    body["version"] = args.version
    return dict(remote.call("POST", f"{path}/{args.verb}", body).json())


def _before(policy: dict[str, Any]) -> int:
    """The version that was last in force and is not now."""
    from gateway.commands.names import UnknownNameError

    for step in policy["history"]:
        if step["state"] == "active" and step["version"] != policy["active_version"]:
            return int(step["version"])
    raise UnknownNameError(f"no other version of policy {policy['name']!r} was ever in force")


def show(policy: dict[str, Any]) -> list[str]:
    """What is in force now, and what can hardly be meant: of a policy that decides nothing only the
    former, whatever its drafts say.
    """
    active, shadow = policy["active_version"], policy["shadow_version"]
    stands = "no version is in force" if active is None else f"version {active} is in force"
    if shadow is not None:
        stands += f", version {shadow} decides without effect"
    warnings = [] if active is None and shadow is None else policy["warnings"]
    return [f"{policy['name']}: {stands}", *(f"warning: {said}" for said in warnings)]


def policy_id(written: str, remote: Any) -> str:
    """Of an id or a name. UnknownNameError where it is not one policy's."""
    from gateway.commands.names import UnknownNameError

    found = [each["id"] for each in remote.all("policies") if written in {each["id"], each["name"]}]
    if len(found) == 1:
        return str(found[0])
    what = "there is no policy" if not found else f"there are {len(found)} policies named"
    raise UnknownNameError(f"{what} {written!r}" + ("; write its id" if found else ""))
