"""What the files of an invoice must hold: rows, sums and digests, counted anew at every call."""

import hashlib
from collections.abc import Iterator
from typing import Final, Literal

import msgspec
from sqlalchemy import Connection

from billing.csv_files import csv_text
from billing.exchange import EXACT_DECIMALS
from billing.money import format_decimal, format_minor, parse_decimal
from gateway.admin import invoice_document
from gateway.admin.invoice_files import FORMS, file_name, rows_of
from gateway.admin.invoices import found_in
from gateway.admin.operation import Answer, Call, Operation
from gateway.admin.roles import Right
from gateway.stores.sql import invoice_remarks, manifests
from gateway.stores.sql.invoices import Invoice
from gateway.stores.sql.manifests import Manifest

_AMOUNTS: Final = ("amount", "BilledCost")  # the column that adds up to the total


class ManifestQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`files`: with `all` the other forms are counted as well, which takes as long as each."""

    files: Literal["lines", "all"] = "lines"


class FileView(msgspec.Struct, frozen=True, kw_only=True):
    """Rows without the header; the sum of the amounts, exact."""

    name: str
    rows: int
    amount: str
    sha256: str


class ManifestView(msgspec.Struct, frozen=True, kw_only=True):
    """What lines.csv holds, counted anew at every call: rows without the header, the sum of the
    exact amounts, and the tokens. `intact`: it is what was issued; null of a draft. `files` are the
    forms of the invoice, each by the name it is downloaded under.
    """

    invoice_id: str
    number: str | None
    status: str
    currency: str
    total: str
    rows: int
    rows_by_kind: dict[str, int]
    amount: str
    quantity: int
    sha256: str
    issued_sha256: str | None
    intact: bool | None
    remarks: tuple[str, ...]
    files: tuple[FileView, ...]


async def _manifest(call: Call) -> Answer:
    query: ManifestQuery = call.query

    def work(connection: Connection) -> ManifestView:
        invoice = found_in(connection, call)
        made = manifests.of(connection, invoice)
        files = [_lines(invoice, made)]
        if query.files == "all":
            files += _others(connection, invoice, made)
        return _view(connection, invoice, made, tuple(files))

    return Answer(await call.read(work))


def operations() -> list[Operation]:
    return [
        Operation(
            "GET", "/invoices/{id}/manifest", "invoices", "What an invoice's files must hold",
            _manifest, right=Right.INVOICES_READ, query=ManifestQuery, answers=ManifestView,
            refusals=(404,),
        )
    ]  # fmt: skip


def _view(
    connection: Connection, invoice: Invoice, made: Manifest, files: tuple[FileView, ...]
) -> ManifestView:
    return ManifestView(
        invoice_id=invoice.id,
        number=invoice.number,
        status=invoice.status,
        currency=invoice.currency,
        total=format_minor(invoice.total_minor, invoice.currency),
        rows=made.rows,
        rows_by_kind=made.rows_by_kind,
        amount=made.amount,
        quantity=made.quantity,
        sha256=made.sha256,
        issued_sha256=invoice.content_sha256,
        intact=made.intact,
        remarks=invoice_remarks.of(connection, invoice),
        files=files,
    )


def _lines(invoice: Invoice, made: Manifest) -> FileView:
    name = file_name(invoice, "csv")
    return FileView(name=name, rows=made.rows, amount=made.amount, sha256=made.sha256)


def _others(connection: Connection, invoice: Invoice, made: Manifest) -> Iterator[FileView]:
    """Memory does not grow with the lines."""
    for form in FORMS[1:]:
        counted = _Counted(rows_of(connection, invoice, form))
        hashed = hashlib.sha256()
        for record in csv_text(counted.passing()):
            hashed.update(record.encode())
        yield FileView(
            name=file_name(invoice, "csv", form),
            rows=counted.rows,
            amount=format_decimal(counted.exact, EXACT_DECIMALS),
            sha256=hashed.hexdigest(),
        )
    hashed = hashlib.sha256()
    for part in invoice_document.parts(connection, invoice):
        hashed.update(part)
    name = file_name(invoice, "json")
    yield FileView(name=name, rows=made.rows, amount=made.amount, sha256=hashed.hexdigest())


class _Counted:
    """Counts rows while they pass."""

    def __init__(self, rows: Iterator[tuple[str, ...]]) -> None:
        self._rows = rows
        self.rows = 0
        self.exact = 0  # 10^-24

    def passing(self) -> Iterator[tuple[str, ...]]:
        head = next(self._rows)
        at = next(head.index(name) for name in _AMOUNTS if name in head)
        yield head
        for row in self._rows:
            self.rows += 1
            self.exact += parse_decimal(row[at], EXACT_DECIMALS)
            yield row
