"""What one worker may spend of one account while the store is away, and what one request spends."""

from gateway.stores.redis.epochs import Epoch
from policies.accounts import Account


class Lease:
    """What this worker may spend of one account. `until_us` is by our monotonic clock."""

    __slots__ = (
        "account", "amount", "asked_us", "epoch", "id", "reserved", "spent", "tag", "unsettled",
        "until_us",
    )  # fmt: skip

    def __init__(self, id_: str, tag: str, account: Account, epoch: Epoch) -> None:
        self.id = id_
        self.tag = tag
        self.account = account
        self.epoch = epoch
        self.amount = 0
        self.until_us = 0
        self.asked_us = 0
        self.spent = 0  # by requests that have ended
        self.reserved = 0  # for those that go on: what they may cost at most
        self.unsettled = 0  # requests that the store has not been told of

    @property
    def is_worn(self) -> bool:
        """Something was spent of it: it is given back when the store knows, and not renewed."""
        return self.spent > 0 or self.unsettled > 0

    @property
    def left(self) -> int:
        return self.amount - self.spent - self.reserved


class Spend:
    """One request's. `ids` stand beside the accounts of its path."""

    __slots__ = ("_ended", "_leases", "ids", "money")

    def __init__(self, leases: tuple[Lease, ...], ids: tuple[str, ...], money: int) -> None:
        self.ids = ids
        self.money = money
        self._leases = leases
        self._ended = False
        for lease in leases:
            lease.reserved += money
            lease.unsettled += 1

    def ended(self, money: int) -> None:
        """It has cost so much. Only the first call counts."""
        if self._ended:
            return
        self._ended = True
        for lease in self._leases:
            lease.reserved -= self.money
            lease.spent += money

    def undo(self) -> None:
        """Nothing was sent anywhere, and the store need not hear of it."""
        self.ended(0)
        self.settled()

    def settled(self) -> None:
        """The store knows, or there is nothing to know. To be called once."""
        for lease in self._leases:
            lease.unsettled -= 1
