"""Keys that are refused for a time, because a breaker found them looping."""

from collections.abc import Iterable

from gateway.clock import rfc3339
from gateway.stores.sql.rows import KeyBlock
from policies.decision import Deny, DenyCode


class Blocks:
    """Of one snapshot. Of several blocks of a key, the one that ends last stands."""

    def __init__(self, blocks: Iterable[KeyBlock]) -> None:
        self._by_key = {each.key_id: each for each in sorted(blocks, key=lambda b: b.until_us)}

    def deny(self, key_id: str, now_us: int) -> Deny | None:
        """Why the key is refused now; None where it is not."""
        block = self._by_key.get(key_id)
        if block is None or now_us >= block.until_us:
            return None
        message = f"{block.reason}; the key is blocked until {rfc3339(block.until_us)}"
        left_ms = (block.until_us - now_us) // 1000
        return Deny(DenyCode.KEY_BLOCKED, message, retry_after_ms=left_ms)
