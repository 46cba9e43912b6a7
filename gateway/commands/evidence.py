"""`meterhouse evidence`: what an auditor takes home, as a folder that says what it holds.

Every file is what the admin API answers to whoever asks, so a token sees no more here than there;
what it may not read is named in the manifest, with the reason. The manifest is written last: a
folder without one is not finished.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.commands.times import HELP, check_span, instant

if TYPE_CHECKING:
    from gateway.commands.remote import Remote

MANIFEST: Final = "MANIFEST.json"

Span = Mapping[str, str | int]

# As they are now; with nothing that is secret in them.
_LISTS: Final = (
    *("tenants", "teams", "keys", "admin-tokens", "backends", "models", "prices", "policies"),
    *("budgets", "grants", "limits", "loop-breakers", "key-blocks", "alert-channels", "alerts"),
    *("exchange-rates", "discounts", "commitments", "provider-bills", "invoices"),
)
_OF_AN_INVOICE: Final = ("manifest", "lines.csv")
_CHECKS: Final = ("audit/head", "audit/verify", "decisions/head", "decisions/verify")
_FORBIDDEN: Final = 403  # to this token
_GROUPS: Final = "day,tenant,team,key,model,backend,provenance"


def add(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = subparsers.add_parser("evidence", help="a folder for an auditor, or a check of one")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    export = verbs.add_parser("export", help="write the folder, with a manifest and digests")
    export.add_argument(
        "--from", required=True, type=instant, dest="since", metavar="TIME", help=HELP
    )
    export.add_argument(
        "--to", required=True, type=instant, dest="until", metavar="TIME",
        help="the same; not part of it",
    )  # fmt: skip
    export.add_argument("-o", "--output", required=True, type=Path, metavar="FOLDER")
    check = verbs.add_parser("check", help="whether a folder is still what its manifest says")
    check.add_argument("folder", type=Path)


def run(args: argparse.Namespace) -> int:
    from gateway.commands.remote import RemoteError

    try:
        if args.verb == "check":
            return _told(checked(args.folder))
        digest = _export(args.output, {"from": args.since, "to": args.until})
    except (RemoteError, OSError, ValueError) as fault:
        print(f"meterhouse: {fault}", file=sys.stderr)
        return 1
    print(f"{args.output}: sha256 of {MANIFEST} {digest}; keep it elsewhere")
    return 0


def checked(folder: Path) -> list[str]:
    """What is not as the manifest says, in words. ValueError where there is no manifest."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        listed = {each["name"]: each for each in manifest["files"]}
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise ValueError(f"{folder} has no manifest that can be read: {fault}") from None
    there = {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    } - {MANIFEST}
    found = [f"{name} is in no manifest" for name in sorted(there - listed.keys())]
    for name, told in listed.items():
        if name not in there:
            found.append(f"{name} is missing")
        elif _digest(folder / name) != told["sha256"]:
            found.append(f"{name} is not what was written")
    return found


def _told(faults: list[str]) -> int:
    for fault in faults:
        print(fault)
    if not faults:
        print("every file is what was written")
    return 1 if faults else 0


def _export(folder: Path, span: Mapping[str, str]) -> str:
    """The digest of the manifest."""
    check_span(span["from"], span["to"])
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: evidence is not mixed; name a new folder")
    written: list[Path] = []
    try:
        return _filled(folder, span, written)
    except BaseException:
        # What is not finished is no evidence, and would be in the way of the next try.
        for path in written:
            path.unlink(missing_ok=True)
        raise


def _filled(folder: Path, span: Span, written: list[Path]) -> str:
    from gateway.commands.remote import Remote, RemoteError

    files: list[dict[str, Any]] = []
    left_out: list[dict[str, str]] = []
    with Remote.from_env() as remote:
        who = remote.call("GET", "/whoami").json()
        for name, parts in _parts(remote, span):
            written.append(folder / name)
            try:
                files.append(_written(folder, name, parts))
            except RemoteError as fault:
                if fault.status != _FORBIDDEN:
                    raise
                (folder / name).unlink()
                print(f"{name} is left out: {fault}", file=sys.stderr)
                left_out.append({"name": name, "because": str(fault)})
    told = {
        "format": 1,
        "span": span,
        "by": {name: who[name] for name in ("id", "name", "role", "scope")},
        "files": files,
        "left_out": left_out,
    }
    text = json.dumps(told, indent=1, sort_keys=True).encode() + b"\n"
    written.append(folder / MANIFEST)
    (folder / MANIFEST).write_bytes(text)
    return hashlib.sha256(text).hexdigest()


def _parts(remote: "Remote", span: Span) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Each file's name and its parts, read as they are written."""
    for name in _CHECKS:
        yield f"{name.replace('/', '-')}.json", _whole(remote, f"/{name}", {})
    yield "audit.jsonl", _objects(remote, "audit", span)
    yield "usage.csv", _whole(remote, "/usage", {**span, "group_by": _GROUPS}, "text/csv")
    for noun in _LISTS:
        yield f"{noun}.jsonl", _objects(remote, noun, {})
    yield "billing-terms.jsonl", _terms(remote)
    for invoice in _invoices(remote):
        for name in _OF_AN_INVOICE:
            path = f"/invoices/{invoice['id']}/{name}"
            suffix = "" if "." in name else ".json"
            asked = {"voided": "true"} if suffix == "" else {}
            yield f"invoice-{invoice['id']}-{name}{suffix}", _whole(remote, path, asked, "*/*")


def _invoices(remote: "Remote") -> Iterator[Mapping[str, Any]]:
    """Those that were issued; none, where invoices are not for this token."""
    from gateway.commands.remote import RemoteError

    try:
        yield from [each for each in remote.all("invoices") if each["number"] is not None]
    except RemoteError as fault:
        if fault.status != _FORBIDDEN:
            raise


def _objects(remote: "Remote", noun: str, params: Span) -> Iterator[bytes]:
    for each in remote.all(noun, params):
        yield json.dumps(each, sort_keys=True).encode() + b"\n"


def _terms(remote: "Remote") -> Iterator[bytes]:
    """By which every tenant's next invoice is made."""
    for tenant in remote.all("tenants"):
        yield from _whole(remote, f"/tenants/{tenant['id']}/billing", {})
        yield b"\n"


def _whole(
    remote: "Remote", path: str, params: Span, accept: str = "application/json"
) -> Iterator[bytes]:
    yield from remote.parts(path, {"accept": accept}, params)


def _written(folder: Path, name: str, parts: Iterator[bytes]) -> dict[str, Any]:
    """As they come: a month may have more than fits memory."""
    digest, rows, size, last = hashlib.sha256(), 0, 0, b""
    with (folder / name).open("xb") as file:
        for part in filter(None, parts):
            file.write(part)
            digest.update(part)
            rows, size, last = rows + part.count(b"\n"), size + len(part), part[-1:]
    rows += last not in (b"", b"\n")  # one that nothing ends
    return {"name": name, "lines": rows, "bytes": size, "sha256": digest.hexdigest()}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
