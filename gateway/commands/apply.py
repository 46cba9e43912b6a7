"""`meterhouse apply`: make the configuration what the documents say."""

import argparse
import json
import sys
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.commands.output import put

_UNASKED: Final = (
    "(the API was not asked: what only it can refuse, such as a price far from the one before it,\n"
    "shows when this is applied)"
)


def add(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = subparsers.add_parser("apply", help="make the configuration what the files say")
    parser.add_argument(
        "-f", "--file", action="append", required=True, type=Path, metavar="FILE",
        dest="files", help="YAML documents, - for standard input; may be given more than once",
    )  # fmt: skip
    parser.add_argument(
        "--dry-run", action="store_true", help="show the differences, change nothing"
    )
    parser.add_argument("--prune", action="store_true", help="delete what no document names")
    parser.add_argument("--json", action="store_true", help="for machines")


def run(args: argparse.Namespace) -> int:
    from gateway.commands import documents
    from gateway.commands.remote import Remote, RemoteError

    unreadable = [str(path) for path in args.files if not _can_be_read(path)]
    if unreadable:
        print(f"meterhouse: no such file: {', '.join(unreadable)}", file=sys.stderr)
        return 2
    try:
        wanted = documents.read(args.files)
        with Remote.from_env() as remote:
            return _apply(args, remote, wanted)
    except (documents.DocumentFault, RemoteError) as fault:
        print(f"meterhouse: {fault}", file=sys.stderr)
        return 1


def _can_be_read(path: Path) -> bool:
    """A pipe too, as the shell's `<(...)` is; `-` is standard input."""
    return str(path) == "-" or (path.exists() and not path.is_dir())


def _apply(args: argparse.Namespace, remote: Any, wanted: list[Any]) -> int:
    """Imagined as a whole before anything is changed: what could not be done keeps all undone."""
    from gateway.commands.documents import DocumentFault
    from gateway.commands.prune import PruneRefusedError
    from gateway.commands.reconcile import Reconciler
    from gateway.commands.remote import RemoteError

    faults: tuple[str, ...] = ()
    done: list[Any] = []
    reason, unasked = None, False
    try:
        if not args.dry_run:
            deque(_steps(args, Reconciler(remote, dry_run=True), wanted), maxlen=0)
        reconciler = Reconciler(remote, dry_run=args.dry_run)
        for step in _steps(args, reconciler, wanted):
            done.append(step)
            for warning in step.warnings:
                what = f"{step.kind} {step.label}: {warning}"
                print(f"meterhouse: warning: {what}", file=sys.stderr)
            if not args.json and (step.action != "unchanged" or step.note):
                put("\n".join(step.lines()))
        unasked = reconciler.unasked
    except DocumentFault as fault:
        reason, faults = str(fault), fault.faults
    except (PruneRefusedError, RemoteError) as fault:
        reason = str(fault)
    _conclude(args, done, reason, faults, unasked=unasked)
    return 0 if reason is None else 1


def _steps(args: argparse.Namespace, reconciler: Any, wanted: list[Any]) -> Iterator[Any]:
    yield from reconciler.apply(wanted)
    if args.prune:
        yield from reconciler.prune()


def _conclude(
    args: argparse.Namespace,
    done: list[Any],
    reason: str | None,
    faults: tuple[str, ...],
    *,
    unasked: bool,
) -> None:
    """What was done, and why no more; where nothing was done for a reason, only the reason."""
    counts = Counter(step.action for step in done)
    if args.json:
        steps = msgspec.to_builtins(done)
        told = {"dry_run": args.dry_run, "steps": steps, "error": reason, "faults": faults}
        put(json.dumps(told))
    elif done or reason is None:
        summary = ", ".join(f"{count} {action}" for action, count in sorted(counts.items()))
        put(f"{'would be: ' if args.dry_run else ''}{summary or 'nothing to do'}")
        if unasked:
            put(_UNASKED)
    if reason is not None:
        print(f"meterhouse: {reason}", file=sys.stderr)
