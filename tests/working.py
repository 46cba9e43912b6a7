"""A simulated box that serves one request after another, at known rates with noise."""

import random

from billing.observed import MINUTE_US, Work


def worked(
    seed: int,
    minutes: int,
    *,
    prefill: int = 5_000,
    decode: int = 200,
    overhead_us: int = 20_000,
    proportion: float | None = None,
    load: float = 0.5,
) -> list[Work]:
    """For so many minutes. `proportion`: every answer has this share of its prompt's tokens."""
    draw, found, at_us = random.Random(seed), list[Work](), 0
    while at_us < minutes * MINUTE_US:
        prompt = int(draw.lognormvariate(6.5, 1))
        answer = int(draw.lognormvariate(5, 0.8) if proportion is None else prompt * proportion)
        first_us = overhead_us + int(prompt * 10**6 / prefill * draw.gauss(1, 0.1))
        rest_us = max(0, int(answer * 10**6 / decode * draw.gauss(1, 0.1)))
        content_us = at_us + max(1, first_us)
        found.append(Work(at_us, content_us, content_us + rest_us, prompt, 0, answer))
        took_us = first_us + rest_us
        at_us += took_us + int(draw.expovariate(1) * took_us * (1 - load) / load)
    return found
