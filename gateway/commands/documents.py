"""Apply files: YAML documents, one object each, as exact as JSON with quotes around every decimal;
or JSON: one object, or an array of them.

YAML 1.1 turns NO into false, 0.10 into a binary float and dates into objects. Here only true,
false, null and whole numbers are anything but text, and a name given twice is refused.
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

KINDS: Final = (  # in the order in which they may refer to one another
    "tenant",
    "team",
    "key",
    "backend",
    "model",
    "price",
    "discount",
    "commitment",
    "policy",
    "budget",
    "grant",
    "limit",
    "loop-breaker",
)
NOUNS: Final = {kind: f"{kind}s" for kind in KINDS} | {"policy": "policies"}


class DocumentFault(Exception):  # noqa: N818 - a fault of the user's file
    """Something is wrong with documents; the message says which and what. `faults`: each by itself,
    with the place of its document.
    """

    def __init__(self, message: str, faults: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.faults = tuple(faults) or (message,)

    @classmethod
    def of_all(cls, found: Sequence["DocumentFault"]) -> "DocumentFault":
        """Of several documents; of one, that one's."""
        if len(found) == 1:
            return found[0]
        faults = [each for fault in found for each in fault.faults]
        lines = "\n  ".join(faults)
        return cls(f"{len(faults)} faults, and nothing was changed:\n  {lines}", faults)


class Document(msgspec.Struct, frozen=True):
    kind: str
    where: str  # file and position, for messages
    fields: dict[str, Any]

    def fault(self, *messages: str) -> DocumentFault:
        place = f"{self.where} ({self.kind}): "
        return DocumentFault(place + "; ".join(messages), [place + each for each in messages])


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: Final = {}  # type: ignore[misc]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"{min(twice)!r} is given twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|false)$"), list("tf"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(~|null|)$"), ["~", "n", ""])
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^-?(0|[1-9][0-9]*)$"), list("-0123456789")
)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, _data: Any) -> bool:
        return True


def read(paths: Iterable[Path]) -> list[Document]:
    """Every document of the files, in the order in which they can be applied."""
    found = [document for path in paths for document in _documents(path)]
    return sorted(found, key=lambda document: KINDS.index(document.kind))


def write(documents: Iterable[dict[str, Any]]) -> str:
    return yaml.dump_all(
        documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True, explicit_start=True
    )


def _loaded(text: str) -> list[Any]:
    """JSON where it is JSON, an array as `export --json` prints it included; else YAML.
    ValueError: a name is given twice.
    """
    try:
        found = json.loads(text, parse_float=str, object_pairs_hook=_once)
    except json.JSONDecodeError:
        return list(yaml.load_all(text, Loader=_Loader))
    return found if isinstance(found, list) else [found]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"says {max(names, key=names.count)!r} twice in one object")
    return dict(pairs)


def _text(path: Path) -> str:
    """`-` is standard input."""
    whole = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    return whole.decode()


def _documents(path: Path) -> Iterator[Document]:
    try:
        loaded = _loaded(_text(path))
    except (yaml.YAMLError, UnicodeDecodeError) as fault:
        raise DocumentFault(f"{path} is not YAML: {fault}") from fault
    except ValueError as fault:
        raise DocumentFault(f"{path} {fault}") from fault
    except OSError as fault:
        raise DocumentFault(f"{path} cannot be read: {fault.strerror}") from fault
    for position, tree in enumerate(loaded, 1):
        if tree is None:
            continue
        where = f"{path}, document {position}"
        if not isinstance(tree, dict) or tree.get("kind") not in KINDS:
            raise DocumentFault(f"{where}: `kind` must be one of {', '.join(KINDS)}")
        yield Document(tree["kind"], where, {k: v for k, v in tree.items() if k != "kind"})
