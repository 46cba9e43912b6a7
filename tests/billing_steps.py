"""One step of a month's close in a process of its own, so that it can be killed at a point of it:
`python -m tests.billing_steps book|compact|check|issue DATABASE_URL`.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any, cast

from gateway.jobs import check_books
from gateway.jobs.deps import JobDeps
from gateway.stores.sql import compaction
from gateway.stores.sql.engine import open_engine
from tests.invoicing import book, drafted, issued, october
from tests.running import run


def main(step: str, url: str) -> None:
    engine = open_engine(url)
    if step == "book":
        book(engine, october("req_1"), october("req_2"))
    elif step == "compact":
        compaction.compact(engine)
    elif step == "check":
        nothing = cast(Any, None)
        deps = JobDeps(engine, nothing, nothing, Path(), "jobs-1")
        run(check_books.run(deps, asyncio.Event()))
    else:
        issued(engine, drafted(engine))
    engine.dispose()


if __name__ == "__main__":
    main(*sys.argv[1:])
