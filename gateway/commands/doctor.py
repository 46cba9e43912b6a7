"""`meterhouse doctor`: check every dependency and say what to do."""

import argparse
import json
import os
import sys
from typing import Any, Final

import msgspec

from gateway.settings import Settings

_MARKS: Final = {"ok": "ok     ", "warning": "look at", "failed": "FAILED "}


def add(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = subparsers.add_parser("doctor", help="check every dependency and say what to do")
    parser.add_argument("--json", action="store_true", help="for machines")


def run(args: argparse.Namespace) -> int:
    from gateway.diagnosis import diagnose

    findings = []
    for finding in diagnose(Settings.from_env(os.environ)):
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
