"""A file is read in one sitting, a function in one look."""

import ast

from tests.architecture.source import modules, place, trees

MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 50


def test_no_file_is_longer_than_a_sitting() -> None:
    long = [
        f"{place(path)} has {lines} lines"
        for path in modules("gateway", "policies", "billing", "tests", "deploy")
        if (lines := len(path.read_text().splitlines())) > MOST_LINES_OF_A_FILE
    ]

    assert long == []


def test_no_function_is_longer_than_a_look() -> None:
    long = [
        f"{place(path, node.lineno)} {node.name} has {lines} lines"
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > MOST_LINES_OF_A_FUNCTION
    ]

    assert long == []


def test_every_module_says_what_it_is_responsible_for() -> None:
    silent = [
        place(path) for path, tree in trees() if tree.body and ast.get_docstring(tree) is None
    ]

    assert silent == []
