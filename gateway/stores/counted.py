"""An account of the store, as those see it who know what it must show."""

import msgspec

from billing.periods import Window


class Counted(msgspec.Struct, frozen=True):
    """One account of the store and whose spending it counts."""

    key: str
    tenant_id: str
    scope_kind: str
    scope_id: str
    window: Window
    unit: int
