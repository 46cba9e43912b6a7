"""Whether an endpoint keeps the connections it promised to keep, learnt from what it does.

A backend that closes right after its answer, against its word, can only be noticed a moment later.
A request written in that moment is lost, and must not be repeated: it may have been processed. So
an endpoint's connections rest before they are used again, until enough of them came through that.
"""

from typing import Final

REST_S: Final = 0.1  # for a stranger
LONG_REST_S: Final = 0.25  # for one that has closed early
EARLY_S: Final = 1.0  # a later end is an idle timeout, and seldom meets a request
FIRST_PROOFS: Final = 32
MOST_PROOFS: Final = 2_048
FORGIVEN_AFTER_S: Final = 3_600.0


class Trust:
    """Laws: `rest_s` is 0 only after as many rests in a row as are required were kept. Each loss
    of trust requires four times as many, up to MOST_PROOFS, unless it had lasted for an hour: an
    endpoint that closes now and then cannot win it again and again at the price of a request.
    """

    __slots__ = ("_earned_at", "_kept", "_required", "rest_s")

    def __init__(self, rest_s: float = REST_S) -> None:
        """With 0 the endpoint is trusted until it fails."""
        self.rest_s = rest_s  # for a connection whose answer has come in; 0: none is needed
        self._kept = 0
        self._required = FIRST_PROOFS
        self._earned_at = 0.0

    def kept(self, now: float) -> None:
        """A connection was still open after its rest. `now` is loop time."""
        self._kept += 1
        if self._kept >= self._required and self.rest_s:
            self.rest_s = 0.0
            self._earned_at = now

    def closed(self, after_s: float, now: float) -> bool:
        """The backend ended an idle connection so long after the answer; whether that cost trust
        it had.
        """
        if after_s > EARLY_S:
            return False
        self._kept = 0
        lost = not self.rest_s
        if lost:
            forgiven = now - self._earned_at >= FORGIVEN_AFTER_S
            self._required = FIRST_PROOFS if forgiven else min(4 * self._required, MOST_PROOFS)
        self.rest_s = LONG_REST_S
        return lost
