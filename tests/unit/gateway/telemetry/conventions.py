"""The GenAI conventions as published, written down apart from our own tables.

Metric name -> (unit, bucket edges; none for a counter). `RELEASED` is the last release of the main
repository, `LATEST` the state of the repository the conventions moved to.
"""

SECONDS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
TOKENS = [
    *(1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864),
]
FIRST_TOKEN = [
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
]
OUTPUT_TOKEN = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5]
HTTP = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]

SERVER = {
    "gen_ai.server.request.duration": ("s", SECONDS),
    "gen_ai.server.time_to_first_token": ("s", FIRST_TOKEN),
    "gen_ai.server.time_per_output_token": ("s", OUTPUT_TOKEN),
}
RELEASED = SERVER | {
    "gen_ai.client.token.usage": ("{token}", TOKENS),
    "gen_ai.client.operation.duration": ("s", SECONDS),
    "gen_ai.client.operation.time_to_first_chunk": ("s", SECONDS),
    "gen_ai.client.operation.time_per_output_chunk": ("s", SECONDS),
}
LATEST = SERVER | {
    "gen_ai.client.inference.duration": ("s", SECONDS),
    "gen_ai.client.inference.time_to_first_chunk": ("s", SECONDS),
    "gen_ai.client.inference.time_per_output_chunk": ("s", SECONDS),
    "gen_ai.client.inference.operation.input_tokens": ("{token}", TOKENS),
    "gen_ai.client.inference.operation.output_tokens": ("{token}", TOKENS),
    "gen_ai.client.inference.usage.input_tokens": ("{token}", []),
    "gen_ai.client.inference.usage.output_tokens": ("{token}", []),
    "gen_ai.client.inference.usage.cache_read.input_tokens": ("{token}", []),
    "gen_ai.client.inference.usage.cache_write.input_tokens": ("{token}", []),
    "gen_ai.client.inference.usage.reasoning.output_tokens": ("{token}", []),
    "gen_ai.client.embeddings.duration": ("s", SECONDS),
    "gen_ai.client.embeddings.operation.input_tokens": ("{token}", TOKENS),
}

INFERENCE_SPAN_REQUIRED = {"gen_ai.operation.name", "gen_ai.provider.name"}
INFERENCE_SPAN = INFERENCE_SPAN_REQUIRED | {
    "error.type",
    "gen_ai.request.model",
    "gen_ai.request.stream",
    "gen_ai.request.choice.count",
    "gen_ai.request.max_tokens",
    "gen_ai.response.id",
    "gen_ai.response.model",
    "gen_ai.response.finish_reasons",
    "gen_ai.response.time_to_first_chunk",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_write.input_tokens",
    "gen_ai.usage.reasoning.output_tokens",
    "server.address",
    "server.port",
}
OPERATIONS = {"chat", "text_completion", "embeddings"}
