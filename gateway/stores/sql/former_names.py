"""What deleted keys and teams were called. Their usage may be booked after they are gone, and what
is billed names its app and team for as long as it is kept. Added where they are deleted, in the
same transaction.
"""

from typing import Final

import msgspec

from gateway.stores.sql.records import Records
from gateway.stores.sql.tables import former_names


class FormerName(msgspec.Struct, frozen=True, kw_only=True):
    id: str  # of the key or team
    tenant_id: str
    name: str
    cost_center: str = ""  # the one a team was billed under, its own or inherited


RECORDS: Final = Records(former_names, FormerName)
