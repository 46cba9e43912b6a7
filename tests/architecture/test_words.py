"""Names come from the field, exceptions have reasons, and nothing is left for later."""

import ast
import re

from tests.architecture.source import modules, place, trees

BANNED_IN_NAMES = re.compile(r"(^|_)(utils?|helpers?|managers?|misc|common|stubs?)(_|$)|_v\d+$")
LATER = re.compile(r"\b(TODO|FIXME|HACK|NotImplementedError)\b")
BARE_EXCEPTION = re.compile(r"#\s*(noqa(?!: [A-Z0-9, ]+ [-(]\s?\w)|type: ignore(?!\[))")
EVERYWHERE = ("gateway", "policies", "billing", "tests", "deploy")


def test_names_say_what_a_thing_is() -> None:
    vague = [
        f"{place(path, line)} {name}"
        for path, tree in trees()
        for name, line in [(path.stem, 0), *_defined(tree)]
        if BANNED_IN_NAMES.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
    ]

    assert vague == []


def test_nothing_is_left_for_later() -> None:
    assert _lines(LATER) == []


def test_an_exception_from_the_rules_gives_its_reason() -> None:
    assert _lines(BARE_EXCEPTION) == []


def _lines(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{place(path, number)} {line.strip()}"
        for path in modules(*EVERYWHERE)
        if path.name != "test_words.py" and pattern.search(path.read_text())
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]


def _defined(tree: ast.Module) -> list[tuple[str, int]]:
    kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return [(node.name, node.lineno) for node in ast.walk(tree) if isinstance(node, kinds)]
