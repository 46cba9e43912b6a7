"""Where a policy depends on the request: which documents speak of it, and what they say together.

Compiling is not for the way of a request. So a request only answers which documents apply, as a
number of one bit for each, and whoever asks keeps what was compiled for that number.
"""

from collections.abc import Sequence

from policies.compile import EffectivePolicy, Scoped, compile_policies
from policies.match import Facets, Occasion


class Occasions:
    """The documents of every scope above one key, for one model."""

    __slots__ = ("_always", "_model", "_sometimes")

    def __init__(self, documents: Sequence[Scoped], model: str) -> None:
        self._model = model
        self._always: list[Scoped] = []
        self._sometimes: list[tuple[Facets, Scoped]] = []
        for scoped in documents:
            facets = scoped[3].facets
            if scoped[3].models is not None and model not in scoped[3].models:
                continue
            if facets is None:
                self._always.append(scoped)
            else:
                self._sometimes.append((facets, scoped))

    @property
    def differ(self) -> bool:
        """Whether it depends on the request at all."""
        return bool(self._sometimes)

    def pattern(self, occasion: Occasion) -> int:
        """Which of the documents that ask something of a request speak of this one."""
        found = 0
        for place, (facets, _scoped) in enumerate(self._sometimes):
            if facets.hold(occasion):
                found |= 1 << place
        return found

    def policy(self, pattern: int) -> EffectivePolicy:
        """What the documents that always apply and those of the pattern say together."""
        chosen = [
            scoped
            for place, (_facets, scoped) in enumerate(self._sometimes)
            if pattern >> place & 1
        ]
        return compile_policies([*self._always, *chosen], self._model)

    def told(self, pattern: int) -> list[tuple[str, bool]]:
        """Each document that asks something of a request: its name, and whether it applied."""
        return [
            (scoped[2], bool(pattern >> place & 1))
            for place, (_facets, scoped) in enumerate(self._sometimes)
        ]
