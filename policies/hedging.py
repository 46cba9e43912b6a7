"""What asking a second backend beside a slow first one may cost: a share of what is asked anyway.

A hedge is bought, not owed: where its share is spent, the request waits for the first backend as it
would have done without.
"""

from typing import Final

# Why a request that a policy has hedged got no second attempt beside a slow one.
WHY_NOT: Final = {
    "client_left": "the client had hung up",
    "resting": "every other candidate of the plan has asked to be left alone for a time",
    "tried": "every candidate of the plan had been tried",
    "unavailable": "the circuit breaker of the next candidate let nothing through",
    "full": "the next candidate had as many requests as it takes",
    "no_slot": "the next candidate takes only so many requests at a time, and no slot was free",
    "share_spent": "hedges have had their share of this key's requests for the model, or of what"
    " these cost (retries.hedge_percent)",
    "budget_spent": "retries and hedges have had their tenth of the last second's requests",
}

_WHOLE: Final = 100
_MOST_SAVED: Final = 10 * _WHOLE  # after a quiet hour, so many hedges at once and no more


class HedgeShare:
    """Of one key and model in one process. At every moment hedges are at most `percent` of the
    requests that were counted, and what they were expected to cost the provider at most that share
    of what the requests were.
    """

    __slots__ = ("_picos", "_requests")

    def __init__(self) -> None:
        self._requests = 0  # in hundredths
        self._picos = 0  # in hundredths

    def request(self, percent: int, cost_picos: int) -> None:
        """Count a request that may be hedged, and what it is expected to cost."""
        self._requests = min(_MOST_SAVED, self._requests + percent)
        self._picos += percent * cost_picos

    def covers(self, cost_picos: int) -> bool:
        """Whether a hedge of this expected cost is within the share."""
        return self._requests >= _WHOLE and self._picos >= _WHOLE * cost_picos

    def take(self, cost_picos: int) -> None:
        """Spend it. ValueError when the share does not cover it."""
        if not self.covers(cost_picos):
            raise ValueError("a hedge beyond its share")
        self._requests -= _WHOLE
        self._picos -= _WHOLE * cost_picos
