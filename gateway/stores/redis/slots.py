"""Which server of a cluster holds which hash slots, read from what its servers say.

A server that was cut off still believes what was true before. Each claim carries the configuration
epoch under which it was made, and of two claims to a slot the one of the later epoch holds.
"""

import binascii
from collections.abc import Iterable
from itertools import groupby
from typing import Final

import msgspec

SLOTS: Final = 16_384

Node = tuple[str, int]


class Claim(msgspec.Struct, frozen=True):
    """The slots from `first` to `last` are `node`'s since `epoch`."""

    epoch: int
    first: int
    last: int
    node: Node


class View(msgspec.Struct, frozen=True):
    """What one server says: who claims what, and everybody it can name."""

    claims: tuple[Claim, ...]
    nodes: tuple[Node, ...]


def slot_of(tag: str) -> int:
    """The slot of every key that carries `{tag}`."""
    return binascii.crc_hqx(tag.encode(), 0) % SLOTS


def read(text: str, asked: Node, *, by_name: bool = False) -> View:
    """The answer of `asked` to CLUSTER NODES. `by_name`: prefer host names, where they are told, to
    IP addresses (a certificate is made out to a name). ValueError for what is no such answer.
    """
    claims: list[Claim] = []
    nodes: list[Node] = []
    for line in text.splitlines():
        _, address, flags, _, _, _, epoch, _, *held = line.split()
        marks = set(flags.split(","))
        if marks & {"noaddr", "handshake"}:
            continue
        node = _node(address, asked, by_name)
        nodes.append(node)
        if "master" not in marks:
            continue
        for span in held:
            if not span.startswith("["):  # one that is being moved
                first, _, last = span.partition("-")
                claims.append(Claim(int(epoch), int(first), int(last or first), node))
    return View(tuple(claims), tuple(nodes))


def _node(text: str, asked: Node, by_name: bool) -> Node:
    """`ip:port@bus_port,hostname,...`; a server that does not know its own address says none."""
    where, *more = text.split(",")
    host, _, port = where.partition("@")[0].rpartition(":")
    if by_name and more and more[0] and "=" not in more[0]:
        host = more[0]
    return host or asked[0], int(port)


def merged(old: Iterable[Claim], fresh: Iterable[Claim]) -> tuple[Claim, ...]:
    """Of several claims to a slot the latest; at the same epoch a fresh one."""
    owners: list[Claim | None] = [None] * SLOTS
    for claim in sorted([*old, *fresh], key=lambda one: one.epoch):
        owners[claim.first : claim.last + 1] = [claim] * (claim.last + 1 - claim.first)
    found: list[Claim] = []
    at = 0
    for claimed, run in groupby(owners, key=_whose):
        length = sum(1 for _ in run)
        if claimed is not None:
            epoch, node = claimed
            found.append(Claim(epoch, at, at + length - 1, node))
        at += length
    return tuple(found)


def _whose(claim: Claim | None) -> tuple[int, Node] | None:
    return None if claim is None else (claim.epoch, claim.node)


def owner(claims: Iterable[Claim], slot: int) -> Node | None:
    return next((one.node for one in claims if one.first <= slot <= one.last), None)
