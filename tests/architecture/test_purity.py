"""The two libraries are values in, values out."""

import ast
import sys

from tests.architecture.source import LIBRARIES, place, trees

ALLOWED = {"msgspec", *LIBRARIES}
EFFECTS = {"open", "print", "input", "exec", "eval", "breakpoint"}


def test_the_libraries_import_the_standard_library_and_msgspec_only() -> None:
    strangers = [
        f"{place(path, node.lineno)} {name}"
        for path, tree in trees(*LIBRARIES)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in _roots(node)
        if name not in ALLOWED and name not in sys.stdlib_module_names
    ]

    assert strangers == []


def test_the_libraries_call_nothing_that_has_an_effect() -> None:
    effects = [
        f"{place(path, node.lineno)} {node.func.id}"
        for path, tree in trees(*LIBRARIES)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in EFFECTS
    ]

    assert effects == []


def test_the_libraries_keep_no_state_in_modules() -> None:
    """A `global` statement is how a pure function stops being one."""
    state = [
        place(path, node.lineno)
        for path, tree in trees(*LIBRARIES)
        for node in ast.walk(tree)
        if isinstance(node, ast.Global)
    ]

    assert state == []


def _roots(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [(node.module or "").partition(".")[0]]
    return [alias.name.partition(".")[0] for alias in node.names]
