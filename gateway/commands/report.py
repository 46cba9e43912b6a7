"""`meterhouse report`: a month's reports as CSV, or as JSON for machines."""

import argparse
import sys
from typing import Any

from gateway.commands.times import HELP, EmptySpanError, check_span, instant


def add(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = subparsers.add_parser("report", help="a month's figures and its forecast, as CSV")
    verbs = parser.add_subparsers(dest="verb", metavar="REPORT", required=True)
    journal = verbs.add_parser("journal", help="postings by day and account, for a general ledger")
    accrual = verbs.add_parser("accrual", help="what is on no invoice at its end, and will be")
    margin = verbs.add_parser("margin", help="charge, cost, margin, and of a million tokens")
    for each, unsaid in ((journal, "by default this one"), (accrual, "by default this one"),
                         (margin, "instead of from and to")):  # fmt: skip
        each.add_argument("--period", metavar="MONTH", help=f"such as 2026-10; {unsaid}")
        each.add_argument("--tenant", help="name or id; all of them by default, in UTC")
    margin.add_argument("--by", default="", metavar="A,B", help="such as team,model or day,backend")
    margin.add_argument(
        "--from", dest="from_", type=instant, metavar="TIME", help=f"{HELP}; 31 days ago by default"
    )
    margin.add_argument(
        "--to", type=instant, metavar="TIME",
        help="the same; it is not part of what is told (--to 2026-11 ends with October); now by "
        "default",
    )  # fmt: skip
    budgets = verbs.add_parser("budgets", help="each budget against what was spent")
    budgets.add_argument(
        "--at", type=instant, metavar="TIME", help=f"of the windows it is in: {HELP}; now"
    )
    forecast = verbs.add_parser("forecast", help="what the month will have cost, and how sure")
    forecast.add_argument("--tenant", help="name or id; all of them by default")
    forecast.add_argument("--by", default="", metavar="A,B", help="such as team or team,model")
    forecast.add_argument(
        "--at", type=instant, metavar="TIME", help=f"by what was known then: {HELP}; now"
    )
    for each in (journal, accrual, margin, budgets, forecast):
        each.add_argument("-o", "--output", metavar="FILE", help="standard output by default")
        each.add_argument("--json", action="store_true", help="for machines")


def run(args: argparse.Namespace) -> int:
    from gateway.commands.downloads import save
    from gateway.commands.files import FileError
    from gateway.commands.names import Names, UnknownNameError
    from gateway.commands.remote import Remote, RemoteError

    given = {"group_by": "by", "from": "from_", "to": "to", "at": "at", "period": "period"}
    params = {name: getattr(args, field, None) for name, field in given.items()}
    try:
        check_span(params["from"], params["to"])
        with Remote.from_env() as remote:
            if getattr(args, "tenant", None) is not None:
                names = Names({"tenant": list(remote.all("tenants"))})
                params["tenant_id"] = names.tenant(args.tenant)
            save(
                remote,
                f"/reports/{args.verb}",
                args.output,
                {name: value for name, value in params.items() if value},
                {"accept": "application/json" if args.json else "text/csv"},
            )
    except (RemoteError, UnknownNameError, FileError, EmptySpanError) as fault:
        print(f"meterhouse: {fault}", file=sys.stderr)
        return 1
    return 0
