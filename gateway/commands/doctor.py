"""`meterhouse doctor`: check every dependency and say what to do."""

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gateway.settings import Settings

if TYPE_CHECKING:
    from gateway.finding import Finding

_MARKS: Final = {"ok": "ok     ", "warning": "look at", "failed": "FAILED "}


def add(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = subparsers.add_parser("doctor", help="check every dependency and say what to do")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument(
        "--url", default="", help="of a gateway to look for, such as http://127.0.0.1:8080; by "
        "default where the running `up` of this home said that it listens",
    )  # fmt: skip
    parser.add_argument(
        "--verify-audit", action="store_true",
        help="check the audit chain in the database, and nothing else",
    )  # fmt: skip
    parser.add_argument(
        "--anchor", type=_anchor, metavar="SEQ:HASH",
        help="a head of the audit chain that was kept elsewhere",
    )  # fmt: skip
    parser.add_argument(
        "--verify-ledger", action="store_true",
        help="derive rollups, balances and invoices anew from the usage rows, and compare",
    )  # fmt: skip
    parser.add_argument(
        "--ledger-anchor", type=_block_anchor, metavar="CHAIN:BLOCK:HASH", action="append",
        default=[], help="a head of a chain of the ledger that was kept elsewhere",
    )  # fmt: skip
    parser.add_argument(
        "--verify-decisions", action="store_true",
        help="check the chains of decisions in the database, and nothing else",
    )  # fmt: skip
    parser.add_argument(
        "--decisions-anchor", type=_block_anchor, metavar="CHAIN:BLOCK:HASH", action="append",
        default=[], help="a head of a chain of decisions that was kept elsewhere",
    )  # fmt: skip


def _anchor(text: str) -> tuple[int, str]:
    seq, _, hashed = text.partition(":")
    if not seq.isdigit() or int(seq) < 1 or re.fullmatch("[0-9a-f]{64}", hashed) is None:
        raise argparse.ArgumentTypeError("write it as 42: and the 64 digits of the hash")
    return int(seq), hashed


def _block_anchor(text: str) -> tuple[str, int, str]:
    chain, _, rest = text.partition(":")
    try:
        number, hashed = _anchor(rest)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            "write it as s00:42: and the 64 digits of the hash"
        ) from None
    return chain, number, hashed


def _findings(args: argparse.Namespace) -> "Iterator[Finding]":
    settings = Settings.from_env(os.environ)
    if args.verify_decisions or args.decisions_anchor:
        from gateway.evidence import decision_chains
        from gateway.stores.sql.decisions import Anchor

        kept = [Anchor(chain, n, bytes.fromhex(h)) for chain, n, h in args.decisions_anchor]
        return decision_chains(settings, kept)
    if args.verify_ledger or args.ledger_anchor:
        from gateway.evidence import ledger_books
        from gateway.stores.sql import journal

        held = [journal.Anchor(chain, n, bytes.fromhex(h)) for chain, n, h in args.ledger_anchor]
        return ledger_books(settings, held)
    if not (args.verify_audit or args.anchor):
        from gateway.diagnosis import diagnose

        return diagnose(settings, args.url)
    from gateway.evidence import audit_chain
    from gateway.stores.sql.audit import Head

    return audit_chain(settings, None if args.anchor is None else Head(*args.anchor))


def run(args: argparse.Namespace) -> int:
    findings = []
    for finding in _findings(args):
        findings.append(finding)
        if not args.json:
            print(f"{_MARKS[finding.state]}  {finding.part:<10} {finding.found}")
            if finding.remedy:
                print(f"{'':19} -> {finding.remedy}")
            sys.stdout.flush()
    failed = any(finding.state == "failed" for finding in findings)
    if args.json:
        print(json.dumps({"ok": not failed, "findings": msgspec.to_builtins(findings)}))
    return 1 if failed else 0
