"""`meterhouse invoice`: from a month's draft to what is issued, exported, credited or voided."""

import argparse
import json
import shlex
import sys
from typing import Any, Final

from billing.service_tiers import ServiceTier
from gateway.program import typed

_FILES: Final[dict[str, tuple[str, dict[str, str | int]]]] = {
    "lines": ("lines.csv", {}),
    "page": ("page.html", {}),
    "json": ("invoice.json", {}),
    "focus-1.2": ("focus.csv", {"version": "1.2"}),
    "focus-1.4-experimental": ("focus.csv", {"version": "1.4"}),
    "focus-1.4-detail-experimental": ("focus-detail.csv", {}),
}

_NAMELESS: Final = (
    "the page lacks the legal name or address of a side: {} "
    "prints what it says, and with --replace FILE puts that right before it is issued"
)

_LIKE_LIVE_ONES: Final = ("lines.csv", "focus.csv")  # nothing in them says that they are voided


def add(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = subparsers.add_parser("invoice", help="draft, issue, export, credit or void invoices")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    listing = verbs.add_parser("list", help="the invoices there are")
    listing.add_argument("--tenant", help="name or id; all of them by default")
    draft = verbs.add_parser("draft", help="make or refresh the draft of a month")
    draft.add_argument("--tenant", required=True, help="name or id")
    draft.add_argument("--period", required=True, metavar="MONTH", help="such as 2026-11")
    issue = verbs.add_parser("issue", help="give a draft its number; it never changes again")
    issue.add_argument("--early", action="store_true", help="though the month is still running")
    discard = verbs.add_parser("discard", help="throw a draft away")
    export = verbs.add_parser("export", help="an invoice as a file")
    export.add_argument(
        "--format", choices=tuple(_FILES), default="lines", help="what the file is (lines)"
    )
    export.add_argument("-o", "--output", metavar="FILE", help="standard output by default")
    export.add_argument("--voided", action="store_true", help="though it counts no more")
    credit = verbs.add_parser("credit", help="take some of an issued invoice back")
    credit.add_argument("--amount", required=True, help="such as 12.50")
    credit.add_argument(
        "--line", metavar="LINE", help="its number on the page, or id; of the whole by default"
    )
    void = verbs.add_parser("void", help="an issued one counts no more; it keeps its number")
    check = verbs.add_parser("check", help="whether it is still what was issued")
    check.add_argument("--all", action="store_true", help="with the digests of all its files")
    explain = verbs.add_parser("explain", help="the requests behind an invoice, or its line")
    explain.add_argument(
        "--line", metavar="LINE", help="its number on the page, or id; of all usage by default"
    )
    terms = verbs.add_parser("terms", help="who bills whom: names, addresses, currency, rules")
    terms.add_argument("--tenant", required=True, help="name or id")
    terms.add_argument("--replace", metavar="FILE", help="by this JSON; as printed without it")
    rating = verbs.add_parser("rating", help="how a request was rated, and what bills it")
    rating.add_argument("request", help="its id: req_...")
    for each in (explain, rating):
        each.add_argument("--page", action="store_true", help="as a page to print and send on")
        each.add_argument(
            "-o", "--output", metavar="FILE", help="of the page; else standard output"
        )
    for each in (issue, discard, export, credit, void, check, explain):
        each.add_argument("invoice", help="its id or number")
    for each in (credit, void):
        each.add_argument("--reason", required=True, help="said on the invoice")
    for each in (listing, draft, issue, credit, void, check, explain, rating):
        each.add_argument("--json", action="store_true", help="for machines")


def run(args: argparse.Namespace) -> int:
    from gateway.commands.files import FileError
    from gateway.commands.names import UnknownNameError
    from gateway.commands.remote import Remote, RemoteError

    verbs = {
        "list": _list,
        "draft": _draft,
        "issue": _issue,
        "export": _export,
        "credit": _credit,
        "void": _void,
        "discard": _discard,
        "check": _check,
        "explain": _explain,
        "rating": _rating,
        "terms": _terms,
    }
    try:
        with Remote.from_env() as remote:
            return verbs[args.verb](args, remote) or 0
    except BrokenPipeError:
        raise  # nobody reads on; that is no failure to tell of
    except (RemoteError, UnknownNameError, FileError, OSError) as fault:
        print(f"meterhouse: {fault}", file=sys.stderr)
        return 1


def _list(args: argparse.Namespace, remote: Any) -> None:
    tenants = {each["id"]: each["name"] for each in remote.all("tenants")}
    wanted = None if args.tenant is None else _tenant_id(args.tenant, remote)
    found = [each for each in remote.all("invoices") if wanted in (None, each["tenant_id"])]
    numbers = {each["id"]: each["number"] for each in found}
    if args.json:
        print(json.dumps(found))
        return
    for each in found:
        tenant = tenants.get(each["tenant_id"], each["tenant_id"])
        _show(each, tenant, numbers.get(each["credits_invoice"]))
    if not found:
        print(f"there are no invoices yet; {typed('invoice draft')} makes one", file=sys.stderr)


def _draft(args: argparse.Namespace, remote: Any) -> None:
    body = {"tenant_id": _tenant_id(args.tenant, remote), "period": args.period}
    made = remote.call("POST", "/invoices", body).json()
    _show_one(args, remote, made)
    terms = remote.call("GET", f"/tenants/{made['tenant_id']}/billing").json()
    if not (terms["recipient"]["name"] and terms["issuer"]["address"]):
        print(
            _NAMELESS.format(typed(f"invoice terms --tenant {shlex.quote(args.tenant)}")),
            file=sys.stderr,
        )


def _issue(args: argparse.Namespace, remote: Any) -> None:
    from gateway.commands.remote import RemoteError

    body = {"early": args.early}
    try:
        answer = remote.call("POST", f"{_path(args, remote)}/issue", body)
    except RemoteError as fault:  # in the words of who types, not of who posts
        raise RemoteError(str(fault).replace('{"early": true}', "--early")) from fault
    _show_one(args, remote, answer.json())


def _credit(args: argparse.Namespace, remote: Any) -> None:
    body = {"amount": args.amount, "reason": args.reason}
    body |= {} if args.line is None else {"line_id": args.line}
    path = f"{_path(args, remote)}/credit-notes"
    made = remote.call("POST", path, body).json()
    _show_one(args, remote, made)
    if made["status"] == "draft":
        said = f"somebody else issues it: {typed('invoice issue ' + made['id'])}"
        print(f"four eyes are agreed for this tenant: {said}", file=sys.stderr)


def _discard(args: argparse.Namespace, remote: Any) -> None:
    remote.call("DELETE", _path(args, remote))


def _void(args: argparse.Namespace, remote: Any) -> None:
    body = {"reason": args.reason}
    _show_one(args, remote, remote.call("POST", f"{_path(args, remote)}/void", body).json())


def _terms(args: argparse.Namespace, remote: Any) -> None:
    from gateway.commands.files import read_json

    path = f"/tenants/{_tenant_id(args.tenant, remote)}/billing"
    if args.replace is None:
        found = remote.call("GET", path)
    else:
        found = remote.call("PUT", path, read_json(args.replace))
    print(json.dumps(found.json(), indent=2))


def _check(args: argparse.Namespace, remote: Any) -> int:
    """Whether the lines are, byte by byte, what was issued: 1 if not."""
    from gateway.commands.remote import DOWNLOAD_S

    params: dict[str, str | int] = {"files": "all"} if args.all else {}
    path = f"{_path(args, remote)}/manifest"
    found = remote.call("GET", path, params=params, within_s=DOWNLOAD_S).json()
    words = {True: "intact", False: "CHANGED SINCE IT WAS ISSUED", None: "a draft"}
    if args.json:
        print(json.dumps(found))
    else:
        print(f"{found['number'] or found['invoice_id']}  {words[found['intact']]}")
        print(f"  {found['rows']} lines, {found['amount']} {found['currency']}")
        print(f"  sha256 of lines.csv  {found['sha256']}")
        for each in found["files"] if args.all else ():
            rows = f"{each['rows']} rows, {each['amount']} {found['currency']}"
            print(f"{each['sha256']}  {each['name']}  {rows}")
    return int(found["intact"] is False)


def _export(args: argparse.Namespace, remote: Any) -> None:
    """To a file only once it is all there: a broken export leaves what was before."""
    from gateway.commands.downloads import save
    from gateway.commands.remote import RemoteError

    file, params = _FILES[args.format]
    if args.voided and file in _LIKE_LIVE_ONES:
        params = params | {"voided": "true"}
    path = f"{_path(args, remote)}/{file}"
    try:
        save(remote, path, args.output, params)
    except RemoteError as fault:
        raise RemoteError(str(fault).replace("`voided=true`", "--voided")) from fault


def _explain(args: argparse.Namespace, remote: Any) -> int:
    """All requests, page by page; 1 if they do not come to what the invoice says."""
    from gateway.commands.downloads import save

    path = f"{_path(args, remote)}/requests"
    of = {} if args.line is None else {"line_id": args.line}
    if args.page:
        save(remote, f"{path}.html", args.output, of)
        return 0
    params: dict[str, str | int] = {"limit": 200, **of}
    teams = {} if args.json else {each["id"]: each["name"] for each in remote.all("teams")}
    while True:
        page = remote.call("GET", path, params=params).json()
        for each in page["items"]:
            figures = f"{each['quantity']} tokens  {each['amount']}  {each['provenance']}"
            whose = f"{teams.get(each['team_id'], each['team_id'])}  {each['model']}"
            line = f"{each['admitted_at']}  {each['request_id']}  {whose}  {figures}"
            print(json.dumps(each) if args.json else line)
        if page["next"] is None:
            break
        params["cursor"] = page["next"]
    if not args.json:
        _sum_up(page)
    if not page["adds_up"]:
        said = "usage was booked since: draft it again" if page["number"] is None else "look at it"
        print(f"meterhouse: that is not what the invoice says; {said}", file=sys.stderr)
    return int(not page["adds_up"])


def _sum_up(page: dict[str, Any]) -> None:
    """What was booked, what the invoice made of it, and what it bills."""
    asked = page["unit_price_per_million"]
    at = page["booked_at_per_million"] or asked
    price = f" at {at} a million" if page["meter"] else ""
    booked = f"{page['amount']} {page['currency']}"
    print(f"{page['requests']} bookings, {page['quantity']} tokens{price}: {booked}")
    if page["changes"]:
        from billing.explained_page import CAUSES

        for each in page["changes"]:
            tokens = f", {each['quantity']} tokens" if each["quantity"] else ""
            print(f"  {CAUSES[each['cause']]}{tokens}: {each['amount']}")
        of = f"the line, {page['billed_quantity']} tokens at {asked} a million"
        print(f"  {of if page['meter'] else 'billed'}: {page['billed']} {page['currency']}")
    if page["line_id"] is None and page["total_currency"] != page["currency"]:
        said = "each line at its rate, rounded once"
        print(f"  the invoice's total: {page['total']} {page['total_currency']}, {said}")


def _rating(args: argparse.Namespace, remote: Any) -> int:
    from gateway.commands.downloads import save

    if args.page:
        save(remote, "/usage/rating.html", args.output, {"request_id": args.request})
        return 0
    params = {"request_id": args.request, "from": "1970-01-01T00:00:00Z"}
    found = remote.call("GET", "/usage/requests", params=params).json()["items"]
    if args.json:
        print(json.dumps(found))
    elif not found:
        print(f"meterhouse: the ledger has no request {args.request}", file=sys.stderr)
    for request in () if args.json else found:
        money = f"{request['charge']} {request['currency']}"
        print(f"{request['request_id']}  {request['model']}  {request['admitted_at']}  {money}")
        for attempt in request["attempts"]:
            won = "won" if attempt["winner"] else "not charged"
            print(f"  attempt {attempt['attempt']}  {won}  {attempt['provenance']}", end="  ")
            print(f"{attempt['hold']}  {attempt['invoice'] or 'on no invoice yet'}", end="")
            print(_tier(attempt))
            for rated in attempt["rating"]:
                price = f"{rated['unit_price_per_million']} a million ({rated['price_version']})"
                print(f"    {rated['meter']}: {rated['quantity']} at {price} = {rated['amount']}")
                _show_steps(rated)
    return int(not found)


def _tier(attempt: dict[str, Any]) -> str:
    """Why it is rated in the tier that it is, where that is not the usual one."""
    tier, asked, served = (attempt[x] for x in ("service_tier", "tier_asked", "tier_served"))
    if tier == asked == ServiceTier.STANDARD and served is None:
        return ""
    return f"  {tier} tier (asked for {asked}, told {served or 'nothing'})"


def _show_steps(rated: dict[str, Any]) -> None:
    if rated["by_quantity"] is None:
        return
    steps = (
        f"{each['unit_price_per_million']} above {each['above_tokens']}" for each in rated["steps"]
    )
    said = f"{rated['by_quantity']} by the month's tokens: {', '.join(steps)}"
    print(f"      {said}; the invoice has what the month's total makes of it")


def _path(args: argparse.Namespace, remote: Any) -> str:
    """Of the invoice that is named, by its number or its id."""
    params = {"number": args.invoice}
    numbered = remote.call("GET", "/invoices", params=params).json()["items"]
    return f"/invoices/{numbered[0]['id'] if numbered else args.invoice}"


def _show_one(args: argparse.Namespace, remote: Any, invoice: dict[str, Any]) -> None:
    if args.json:
        print(json.dumps(invoice))
    else:
        tenant = remote.call("GET", f"/tenants/{invoice['tenant_id']}").json()
        _show(invoice, tenant["name"])
        for remark in invoice["remarks"]:
            print(f"  {remark}", file=sys.stderr)


def _tenant_id(written: str, remote: Any) -> str:
    from gateway.commands.names import Names

    return Names({"tenant": list(remote.all("tenants"))}).tenant(written)


def _show(invoice: dict[str, Any], tenant: str, credited: str | None = None) -> None:
    number = invoice["number"] or "-"
    total = f"{invoice['total']} {invoice['currency']}"
    said = f"{invoice['id']}  {tenant}  {invoice['period']}  {invoice['status']}  {number}  {total}"
    if invoice["kind"] == "credit_note":
        said += f"  credit note on {credited or invoice['credits_invoice']}"
    print(said)
