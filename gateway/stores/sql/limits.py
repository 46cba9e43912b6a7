"""Rate and concurrency limits, one row a scope."""

from typing import Final

from gateway.stores.sql.records import Records
from gateway.stores.sql.rows import Limit
from gateway.stores.sql.tables import limits

RECORDS: Final = Records(limits, Limit)
