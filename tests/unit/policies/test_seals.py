"""Whatever is done to a chain of sealed records, the first wrong link is named."""

import hashlib
from collections.abc import Sequence

import msgspec
import pytest

from policies.seals import ORIGIN, Block, Chain, content_of, seal

RECORDS = [[b"one", b"two"], [b"three"], [b"four", b"five", b"six"]]


def a_chain(name: str = "s00") -> list[Block]:
    blocks: list[Block] = []
    for number, records in enumerate(RECORDS, start=1):
        previous = blocks[-1].hash if blocks else ORIGIN
        blocks.append(seal(name, number, previous, records, sealed_at_us=number * 10))
    return blocks


def fault_of(blocks: Sequence[Block], records: Sequence[Sequence[bytes] | None]) -> str | None:
    chain = Chain("s00")
    for block, its in zip(blocks, records, strict=True):
        chain.follow(block, its)
    return None if chain.fault is None else f"{chain.fault.number}: {chain.fault.fault}"


def test_an_untouched_chain_holds() -> None:
    assert fault_of(a_chain(), RECORDS) is None


def test_records_that_are_gone_leave_the_chain_whole() -> None:
    assert fault_of(a_chain(), [None, None, RECORDS[2]]) is None


def test_records_that_are_gone_while_older_ones_are_there_were_taken() -> None:
    assert fault_of(a_chain(), [RECORDS[0], None, RECORDS[2]]) == (
        "2: its records are missing, and older ones are there"
    )


@pytest.mark.parametrize(
    ("records", "fault"),
    [
        ([[b"one", b"TWO"], *RECORDS[1:]], "1: its records are not those that were sealed"),
        ([[b"two", b"one"], *RECORDS[1:]], "1: its records are not those that were sealed"),
        ([[b"one"], *RECORDS[1:]], "1: 1 records where 2 were sealed"),
        ([[b"onetwo"], *RECORDS[1:]], "1: 1 records where 2 were sealed"),
        ([RECORDS[0], [b"three", b"x"], RECORDS[2]], "2: 2 records where 1 were sealed"),
    ],
)
def test_a_record_that_was_changed_moved_or_removed_is_found(
    records: list[list[bytes]], fault: str
) -> None:
    assert fault_of(a_chain(), records) == fault


def test_a_block_that_is_missing_or_moved_is_found() -> None:
    first, second, third = a_chain()

    assert fault_of([first, third], [RECORDS[0], RECORDS[2]]) == "3: block 2 is missing"
    assert fault_of([second], [RECORDS[1]]) == "2: block 1 is missing"


@pytest.mark.parametrize("field", ["sealed_at_us", "count", "content", "hash"])
def test_a_block_that_says_something_else_is_found(field: str) -> None:
    blocks = a_chain()
    was = getattr(blocks[1], field)
    told = was + 1 if isinstance(was, int) else bytes(32)
    blocks[1] = msgspec.structs.replace(blocks[1], **{field: told})

    assert fault_of(blocks, [RECORDS[0], None, RECORDS[2]]) is not None


def test_a_block_sealed_anew_does_not_fit_the_one_after_it() -> None:
    first, second, third = a_chain()
    forged = seal("s00", 2, first.hash, [b"3"], second.sealed_at_us)

    found = fault_of([first, forged, third], [RECORDS[0], [b"3"], RECORDS[2]])
    assert found == "3: it does not follow the block before it"


def test_blocks_of_another_chain_do_not_fit() -> None:
    assert fault_of(a_chain("s01"), RECORDS) == "1: its hash is not that of what it says"


def test_the_hash_is_what_the_description_says() -> None:
    block = a_chain()[0]
    inner = hashlib.sha256(b"".join(hashlib.sha256(r).digest() for r in RECORDS[0])).digest()
    numbers = b"".join(n.to_bytes(8, "big") for n in (1, 10, 2))

    assert content_of(RECORDS[0]) == (inner, 2)
    whole = b"meterhouse decisions 1" + b"s00\0" + numbers + inner + bytes(32)
    assert block.hash == hashlib.sha256(whole).digest()
