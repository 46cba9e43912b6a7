"""The dependency direction of the house, and that importing it does nothing."""

import ast
import json
import subprocess
import sys

from tests.architecture.source import ROOT, dotted, modules, place, trees

SENDING = {f"gateway.backends.{name}" for name in ("transport", "pool", "connection")}
LINT = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
IMPORT_ALL = """
import importlib, json, sys, threading
done = []
def watch(event, arguments):
    if event in {"socket.connect", "socket.bind", "subprocess.Popen", "os.mkdir", "os.remove"}:
        done.append(f"{event} {arguments!r}")
    elif event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        done.append(f"open {arguments[0]} {arguments[1]}")
sys.dont_write_bytecode = True
sys.addaudithook(watch)
for name in json.loads(sys.argv[1]):
    before = len(done)
    importlib.import_module(name)
    done[before:] = [f"{name}: {what}" for what in done[before:]]
done += [f"thread {thread.name}" for thread in threading.enumerate()[1:]]
print(json.dumps(done))
"""


def test_rooms_only_know_the_rooms_below_them() -> None:
    found = subprocess.run(
        [sys.executable, "-c", LINT], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert found.returncode == 0, found.stdout + found.stderr


def test_importing_any_module_has_no_effect() -> None:
    names = [dotted(path) for path in modules() if path.name != "__main__.py"]

    found = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, json.dumps(names)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout.splitlines()[-1]) == []


def test_httpx_stays_out_of_the_way_of_a_request() -> None:
    imported = [
        place(path, node.lineno)
        for path, tree in trees("gateway/dataplane", "gateway/backends")
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else _names(node))
        if name.partition(".")[0] in {"httpx", "requests", "urllib3"}
    ]

    assert imported == []


def test_one_place_sends_to_backends_and_one_place_calls_it() -> None:
    holds, calls = set(), set()
    for path, tree in trees("gateway"):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module in SENDING:
                holds.add(place(path))
            if isinstance(node, ast.Attribute) and node.attr == "forward":
                calls.add(place(path))

    assert {each for each in holds if not each.startswith("gateway/backends/")} == {
        "gateway/dataplane/forward.py",
        "gateway/wiring/data.py",
    }
    assert calls == {"gateway/dataplane/request.py"}


def _names(node: ast.Import) -> list[str]:
    return [alias.name for alias in node.names]
