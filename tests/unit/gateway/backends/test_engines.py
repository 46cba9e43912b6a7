import pytest

from gateway.backends.engines import gauges
from policies.candidates import Gauges

PAGES = {
    "vllm": b"""# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_running{engine="0",model_name="llama"} 31.0
vllm:num_requests_waiting{engine="0",model_name="llama"} 4.0
vllm:num_requests_waiting{engine="1",model_name="llama"} 3.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 99.0
vllm:kv_cache_usage_perc{engine="0",model_name="llama"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="llama"} 0.8125
""",
    "sglang": b"""sglang:num_queue_reqs{model_name="m",tp_rank="0"} 7
sglang:token_usage{model_name="m",tp_rank="0"} 0.8125
""",
    "llama.cpp": b"""llamacpp:requests_processing 2
llamacpp:requests_deferred 7
llamacpp:kv_cache_usage_ratio 0.8125
""",
    "trtllm": b"""trtllm_num_requests_waiting 7
trtllm_kv_cache_utilization 0.8125 1763000000000
""",
    "triton": b"""nv_trt_llm_request_metrics{model="m",request_type="scheduled",version="1"} 64
nv_trt_llm_request_metrics{model="m",request_type="waiting",version="1"} 7
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used",model="m",version="1"} 900
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="m",version="1"} 0.8125
""",
}


@pytest.mark.parametrize("engine", PAGES)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_the_names_of_each_engine_come_to_the_same(engine: str, line_end: bytes) -> None:
    page = PAGES[engine].replace(b"\n", line_end)

    assert gauges(page) == Gauges(waiting=7, cache_permille=812)


def test_one_figure_is_enough_and_a_page_of_others_says_nothing() -> None:
    assert gauges(b"tgi_queue_size 3") == Gauges(waiting=3)
    assert gauges(b"vllm:kv_cache_usage_perc 1.2\n") == Gauges(cache_permille=1_000)
    assert gauges(b"process_cpu_seconds_total 3\n") is None
    assert gauges(b"<html>vllm:num_requests_waiting</html>") is None
    assert gauges(b"") is None


@pytest.mark.parametrize("value", [b"NaN", b"+Inf", b"-1", b"many", b"1e999"])
def test_what_is_no_load_is_passed_over(value: bytes) -> None:
    assert gauges(b"tgi_queue_size " + value) is None


def test_a_hostile_page_is_read_in_time_and_bounds() -> None:
    assert gauges(b"tgi_queue_size 1e300\n") == Gauges(waiting=1_000_000)
    assert gauges((b"a{" * 100_000) + b"\n" + b'b{x="' * 100_000) is None
    assert gauges(b"tgi_queue_size" + b" " * 500_000) is None
