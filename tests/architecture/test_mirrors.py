"""Every module of the two libraries that does something has a unit test file of its name."""

import ast

from tests.architecture.source import LIBRARIES, ROOT, place, trees


def test_every_module_of_the_libraries_has_its_own_unit_tests() -> None:
    untested = [
        place(path)
        for path, tree in trees(*LIBRARIES)
        if _does_something(tree) and not _mirror_exists(place(path))
    ]

    assert untested == []


def _mirror_exists(shown: str) -> bool:
    package, _, name = shown.rpartition("/")
    return (ROOT / "tests" / "unit" / package / f"test_{name}").exists()


def _does_something(tree: ast.Module) -> bool:
    """Modules that only declare Structs and enums are tested by whoever uses them."""
    return any(isinstance(node, ast.FunctionDef) for node in ast.walk(tree))
