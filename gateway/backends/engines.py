"""What inference engines publish of their load, under the names each gives it, as two figures.

vLLM, SGLang, llama.cpp, TGI and TensorRT-LLM (its own server, and Triton) are known. Figures are
added over models and engines where they count requests; of a cache the fullest part speaks.
"""

import math
import re
from typing import Final

from policies.candidates import Gauges

MOST_BYTES: Final = 2 * 1024 * 1024  # of a page; real ones have a tenth of it
_MOST_WAITING: Final = 1_000_000

_WAITING: Final = (
    b"vllm:num_requests_waiting",
    b"sglang:num_queue_reqs",
    b"llamacpp:requests_deferred",
    b"tgi_queue_size",
    b"trtllm_num_requests_waiting",
    b'nv_trt_llm_request_metrics{request_type="waiting"}',
)
_CACHE: Final = (
    b"vllm:kv_cache_usage_perc",
    b"vllm:gpu_cache_usage_perc",  # before 0.9
    b"sglang:token_usage",
    b"llamacpp:kv_cache_usage_ratio",
    b"trtllm_kv_cache_utilization",
    b'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction"}',
)
_SAMPLE: Final = re.compile(
    rb"^(\w[\w:]*)(?:\{([^}\n]*)\})?[ \t]+([-+.\w]+)(?:[ \t]+\d+)?[ \t]*\r?$", re.MULTILINE
)
_KIND: Final = re.compile(rb'(?:request_type|kv_cache_block_type)="[^"]*"')


def gauges(page: bytes) -> Gauges | None:
    """What a page of metrics says of the load; None where it says nothing we know."""
    waiting: float | None = None
    cache: float | None = None
    for bare, labels, text in _SAMPLE.findall(page):
        name = bare
        if bare.startswith(b"nv_trt_llm_") and (kind := _KIND.search(labels)) is not None:
            name = b"%s{%s}" % (bare, kind[0])
        if name in _WAITING and (value := _number(text)) is not None:
            waiting = (waiting or 0) + value
        elif name in _CACHE and (value := _number(text)) is not None:
            cache = max(cache or 0, value)
    if waiting is None and cache is None:
        return None
    return Gauges(
        None if waiting is None else min(_MOST_WAITING, round(waiting)),
        None if cache is None else min(1_000, round(cache * 1_000)),
    )


def _number(text: bytes) -> float | None:
    """None for what is no figure of a load: not a number, infinite, negative."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
