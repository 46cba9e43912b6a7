"""Money is integers: no float enters the arithmetic of billing, no formatted one leaves Lua."""

import ast
import re

from tests.architecture.source import ROOT, place, trees

# Decimal points are fine in text; these make or take binary fractions.
_FLOATING_CALLS = {"float", "round", "sum_float", "fsum"}
_FLOATING_MODULES = {"math", "cmath", "statistics", "random", "numpy"}


def test_billing_has_no_floats() -> None:
    faults = [
        f"{place(path, node.lineno)} {fault}"
        for path, tree in trees("billing")
        for node in ast.walk(tree)
        if isinstance(node, ast.expr | ast.stmt) and (fault := _fault(node))
    ]

    assert faults == []


def test_the_lint_finds_what_it_is_for() -> None:
    for code in ("x = 0.5", "x = a / b", "x /= 2", "float(x)", "round(x)", "import math"):
        assert any(_fault(node) for node in ast.walk(ast.parse(code))), code


def test_scripts_keep_to_one_slot_and_never_format_a_number() -> None:
    scripts = sorted((ROOT / "gateway" / "stores").rglob("*.lua"))
    # An error may be put into words; `answer` is one where it is not a table.
    formatting = re.compile(r"\b(cjson|tostring\((?!answer\))|string\.format)")

    faults = [place(path) for path in scripts if not path.read_text().startswith("#!lua")]
    faults += [
        f"{place(path, number)} {found[1]}"
        for path in scripts
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (found := formatting.search(line.partition("--")[0]))
    ]

    assert faults == []


def _fault(node: ast.AST) -> str:
    match node:
        case ast.Constant(value=float()):
            return "a float literal"
        case ast.BinOp(op=ast.Div()) | ast.AugAssign(op=ast.Div()):
            return "true division"
        case ast.Call(func=ast.Name(id=name)) if name in _FLOATING_CALLS:
            return f"{name}()"
        case ast.Import(names=[ast.alias(name=name), *_]) if name in _FLOATING_MODULES:
            return f"import {name}"
        case ast.ImportFrom(module=str(name)) if name in _FLOATING_MODULES:
            return f"import from {name}"
    return ""
