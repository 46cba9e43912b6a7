"""Answers that are tables: CSV where the client prefers it to JSON."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import IO, Any, Final

from litestar import Response
from litestar.response import Stream

from billing.csv_files import csv_text

CSV: Final = "text/csv"
_IN_MEMORY_BYTES: Final = 4 * 1024 * 1024
_PART_BYTES: Final = 64 * 1024


def prefers_csv(accept: str) -> bool:
    """Whether an Accept header asks for CSV more than for JSON."""
    weights: dict[str, float] = {}
    for part in accept.split(","):
        media, *parameters = (word.strip().lower() for word in part.split(";"))
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        weights[media] = float(quality) if quality.replace(".", "", 1).isdigit() else 0.0
    json = max(weights.get(media, 0.0) for media in ("application/json", "application/*", "*/*"))
    return weights.get(CSV, 0.0) > 0.0 and weights[CSV] >= json


def csv_answer(rows: Iterable[Sequence[str]], headers: dict[str, str]) -> Response[bytes]:
    """A table that fits memory; the first row is the header."""
    return Response("".join(csv_text(rows)).encode(), headers=headers, media_type=CSV)


def write_csv(rows: Iterable[Sequence[str]]) -> IO[bytes]:
    """A table of any size in a temporary file, so that whoever reads it slowly holds no database
    connection. The caller closes it; a large one is on disk and has no name.
    """
    return write_file(csv_text(rows))


def write_file(parts: Iterable[str]) -> IO[bytes]:
    """The same of any text, as UTF-8."""
    return write_bytes(part.encode() for part in parts)


def write_bytes(parts: Iterable[bytes]) -> IO[bytes]:
    """The same of anything."""
    file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 - handed on
    try:
        for part in parts:
            file.write(part)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def csv_file_answer(file: IO[bytes], name: str) -> Stream:
    """What `write_csv` made, as a download; closed once it is sent or the client is gone."""
    return file_answer(file, CSV, {"content-disposition": f'attachment; filename="{name}"'})


def file_answer(file: IO[bytes], media_type: str, headers: Mapping[str, str]) -> Stream:
    """The same of any file."""
    size = file.seek(0, 2)
    file.seek(0)
    return Stream(
        _parts(file),
        headers={"content-length": str(size), "cache-control": "no-store", **headers},
        media_type=media_type,
    )


async def _parts(file: IO[bytes]) -> AsyncIterator[bytes]:
    with file:
        while part := await asyncio.to_thread(file.read, _PART_BYTES):
            yield part


def shown(value: Any) -> str:
    return "" if value is None else str(value)
