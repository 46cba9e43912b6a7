"""One step of a month's close in a process of its own, so that it can be killed at a point of it:
`python -m tests.billing_steps book|compact|issue DATABASE_URL`.
"""

import sys

from gateway.stores.sql import compaction
from gateway.stores.sql.engine import open_engine
from tests.invoicing import book, drafted, issued, october


def main(step: str, url: str) -> None:
    engine = open_engine(url)
    if step == "book":
        book(engine, october("req_1"), october("req_2"))
    elif step == "compact":
        compaction.compact(engine)
    else:
        issued(engine, drafted(engine))
    engine.dispose()


if __name__ == "__main__":
    main(*sys.argv[1:])
