"""Admit, settle, release and extend against real stores: what a caller may rely on."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from gateway.stores.redis import keys, records
from gateway.stores.redis.holds import (
    TOKENS,
    Granted,
    HoldStore,
    Refused,
    Settlement,
)
from tests.holding import TAG, account, ask, books, gate, open_holds, open_reader, slot
from tests.running import run

LARGE = 123_456_789_012_345


def test_a_grant_is_what_the_tightest_level_can_pay(any_store_url: str) -> None:
    async def story(holds: HoldStore) -> None:
        wide, tight = account(1_000_000, "wide"), account(1_000 + 57 * 10 + 9, "tight")
        granted = await holds.admit(TAG, ask(accounts=(wide, tight)))
        assert isinstance(granted, Granted)
        assert granted.output_tokens == 57
        assert granted.held_money == 1_570
        assert granted.remaining == (1_000_000 - 1_570, 9)

    run(_with(any_store_url, story))


def test_a_refused_request_leaves_no_trace_on_any_level(any_store_url: str) -> None:
    async def story(holds: HoldStore) -> None:
        refused = await holds.admit(
            TAG,
            ask(
                gates=(gate(1_000, 1_000_000),),
                slots=(slot(5),),
                accounts=(account(1_000_000, "wide"), account(1_099, "tight")),
            ),
        )
        assert isinstance(refused, Refused)
        assert (refused.reason, refused.index, refused.available) == ("budget", 1, 9)
        async with open_reader(any_store_url) as reader:
            assert await reader.keys("*") == [keys.epoch(TAG).encode()]

    run(_with(any_store_url, story))


def test_seven_of_two_hundred_concurrent_requests_fit_and_seven_get_in(any_store_url: str) -> None:
    async def story(holds: HoldStore) -> None:
        asks = [ask(wanted=0, least=0, accounts=(account(7_999),)) for _ in range(200)]
        answers = await asyncio.gather(*(holds.admit(TAG, one) for one in asks))
        assert sum(isinstance(answer, Granted) for answer in answers) == 7
        async with open_reader(any_store_url) as reader:
            assert await books(reader) == (0, 7_000)

    run(_with(any_store_url, story))


def test_a_thousand_tiny_requests_use_a_cap_up_exactly(store_url: str) -> None:
    async def story(holds: HoldStore) -> None:
        tiny = [
            ask(input_money=LARGE // 1000, wanted=0, least=0, accounts=(account(LARGE),))
            for _ in range(1001)
        ]
        answers = await asyncio.gather(*(holds.admit(TAG, one) for one in tiny))
        assert sum(isinstance(answer, Granted) for answer in answers) == 1000
        settled = await asyncio.gather(
            *(holds.settle(TAG, Settlement(one.hold_id, LARGE // 1000, 1)) for one in tiny)
        )
        assert sum(settled) == 1000
        async with open_reader(store_url) as reader:
            assert await books(reader) == (LARGE // 1000 * 1000, 0)

    run(_with(store_url, story))


def test_123456_789012345_units_pass_through_every_script_unharmed(
    any_store_url: str, figure: Callable[[str], None]
) -> None:
    async def story(holds: HoldStore) -> None:
        whole = {"wanted": 0, "least": 0, "accounts": (account(LARGE),)}
        given_back, spent = ask(input_money=LARGE, **whole), ask(input_money=LARGE, **whole)
        async with open_reader(any_store_url) as reader:
            granted = await holds.admit(TAG, given_back)
            assert isinstance(granted, Granted)
            assert (granted.held_money, granted.remaining) == (LARGE, (0,))
            assert await books(reader) == (0, LARGE)
            assert await holds.extend(TAG, [given_back.hold_id], 60_000) == ()
            assert await books(reader) == (0, LARGE)
            assert await holds.release(TAG, given_back.hold_id)
            assert await books(reader) == (0, 0)
            assert isinstance(await holds.admit(TAG, spent), Granted)
            assert await holds.settle(TAG, Settlement(spent.hold_id, LARGE, 1))
            assert await books(reader) == (LARGE, 0)
            refused = await holds.admit(TAG, ask(input_money=1, **whole))
            assert isinstance(refused, Refused)
            posted = await reader.hget(keys.account(TAG, "b", "m"), "posted")
            assert posted == str(LARGE).encode()
            server = (await reader.info("server"))["redis_version"]
            figure(f"Redis {server}: admit, extend, release, admit, settle: posted {posted!r}")

    run(_with(any_store_url, story))


def test_settling_posts_the_truth_and_writes_the_journal_once(any_store_url: str) -> None:
    async def story(holds: HoldStore) -> None:
        one = ask(accounts=(account(1_000_000), account(-1, "tokens", TOKENS)), slots=(slot(1),))
        await holds.admit(TAG, one)
        assert await holds.settle(TAG, Settlement(one.hold_id, 777, 55, event=b"first"))
        assert not await holds.settle(TAG, Settlement(one.hold_id, 777, 55, event=b"again"))
        async with open_reader(any_store_url) as reader:
            assert await books(reader) == (777, 0)
            assert await books(reader, "tokens") == (55, 0)
            entries = await reader.xrange(keys.journal(TAG))
            assert [fields for _, fields in entries] == [
                {b"e": b"first", b"h": b"1"},
                {b"e": b"again", b"h": b"0"},
            ]
            assert await records.living(reader, TAG) == 0
            assert not await reader.exists(keys.slots(TAG, "lim"))

    run(_with(any_store_url, story))


def test_a_duplicate_admission_answers_the_same_grant_and_holds_once(store_url: str) -> None:
    async def story(holds: HoldStore) -> None:
        one = ask(accounts=(account(5_000),), gates=(gate(10, 10**9),))
        first, again = await holds.admit(TAG, one), await holds.admit(TAG, one)
        assert isinstance(first, Granted)
        assert isinstance(again, Granted)
        assert again.duplicate
        assert (again.output_tokens, again.held_money) == (first.output_tokens, first.held_money)
        assert again.remaining == first.remaining
        async with open_reader(store_url) as reader:
            assert await books(reader) == (0, 2_000)

    run(_with(store_url, story))


def test_a_released_id_is_spent_even_before_its_admission_arrives(store_url: str) -> None:
    async def story(holds: HoldStore) -> None:
        one = ask(accounts=(account(5_000),))
        assert not await holds.release(TAG, one.hold_id)
        answer = await holds.admit(TAG, one)
        assert isinstance(answer, Refused)
        assert answer.reason == "spent"
        async with open_reader(store_url) as reader:
            assert await books(reader) == (0, 0)

    run(_with(store_url, story))


def test_what_was_posted_without_a_hold_is_never_held_by_an_admission_that_comes_late(
    any_store_url: str,
) -> None:
    async def story(holds: HoldStore) -> None:
        one = ask(accounts=(account(5_000),))
        await holds.settle(TAG, Settlement(one.hold_id, 777, 55, unheld=one.accounts))
        assert not await holds.release(TAG, one.hold_id)  # of the admission that had no answer
        answer = await holds.admit(TAG, one)
        assert isinstance(answer, Refused)
        assert answer.reason == "spent"
        async with open_reader(any_store_url) as reader:
            assert await books(reader) == (777, 0)
            marked_ms = await reader.pttl(f"mh:{{{TAG}}}:posted:{one.hold_id}")
            spent_ms = await reader.pttl(keys.hold(TAG, one.hold_id))
            assert abs(spent_ms - marked_ms) < 10_000

    run(_with(any_store_url, story))


def test_slots_come_back_by_release_settle_and_expiry(store_url: str) -> None:
    async def story(holds: HoldStore) -> None:
        first, second, third = (ask(slots=(slot(1),)) for _ in range(3))
        assert isinstance(await holds.admit(TAG, first), Granted)
        busy = await holds.admit(TAG, second)
        assert isinstance(busy, Refused)
        assert busy.reason == "concurrency"
        await holds.release(TAG, first.hold_id)
        brief = ask(slots=(slot(1),), ttl_ms=1)
        assert isinstance(await holds.admit(TAG, brief), Granted)
        while isinstance(await holds.admit(TAG, third), Refused):
            pass  # a millisecond of the store's clock
        assert await holds.extend(TAG, [third.hold_id, "gone"], 60_000) == ("gone",)

    run(_with(store_url, story))


def test_a_window_is_half_open_to_the_millisecond(store_url: str) -> None:
    async def story(holds: HoldStore) -> None:
        met = set()
        while met != {"ends now", "ends next"}:
            now_ms = time.time_ns() // 1_000_000
            ends = [now_ms + late for late in range(-2, 14)]
            asks = [ask(accounts=(account(-1, end_ms=end_ms),)) for end_ms in ends]
            answers = await asyncio.gather(*(holds.admit(TAG, one) for one in asks))
            for end_ms, answer in zip(ends, answers, strict=True):
                assert isinstance(answer, Granted) == (answer.now_ms < end_ms)
                if answer.now_ms == end_ms:
                    met.add("ends now")
                if answer.now_ms + 1 == end_ms:
                    met.add("ends next")

    run(_with(store_url, story))


def test_the_counters_of_a_window_outlive_it_but_not_for_ever(any_store_url: str) -> None:
    async def story(holds: HoldStore) -> None:
        end_ms = time.time_ns() // 1_000_000 + 60_000
        await holds.admit(TAG, ask(accounts=(account(-1, end_ms=end_ms),)))
        async with open_reader(any_store_url) as reader:
            lives_ms = await reader.pttl(keys.account(TAG, "b", "m"))
            assert 39 < lives_ms / 86_400_000 < 41

    run(_with(any_store_url, story))


def test_unused_tokens_go_back_to_the_rate_limit(any_store_url: str) -> None:
    async def story(holds: HoldStore) -> None:
        tight = gate(900_000_000, 1_000_000_000, "tpm")
        one, two = ask(gates=(tight,)), ask(gates=(tight,))
        assert isinstance(await holds.admit(TAG, one), Granted)
        refused = await holds.admit(TAG, two)
        assert isinstance(refused, Refused)
        assert refused.reason == "rate"
        assert 799_000 < refused.retry_after_ms <= 800_000
        await holds.settle(TAG, Settlement(one.hold_id, 0, 0, ((tight.key, -800_000_000),)))
        assert isinstance(await holds.admit(TAG, ask(gates=(tight,))), Granted)

    run(_with(any_store_url, story))


def test_one_broken_key_fails_its_own_request_alone(store_url: str) -> None:
    async def story(holds: HoldStore) -> None:
        async with open_reader(store_url) as reader:
            await reader.set(keys.account(TAG, "broken", "m"), "not a hash")
        good, bad = ask(accounts=(account(5_000),)), ask(accounts=(account(9, "broken"),))
        answers = await asyncio.gather(
            *(holds.admit(TAG, one) for one in (good, bad)), return_exceptions=True
        )
        assert isinstance(answers[0], Granted)
        assert "WRONGTYPE" in str(answers[1])

    run(_with(store_url, story))


def test_an_expired_hold_is_found_with_everything_needed_to_end_it(store_url: str) -> None:
    async def story(holds: HoldStore) -> None:
        one = ask(ttl_ms=0, accounts=(account(5_000),), meta=b"\x00\xffmeta", gates=(gate(1, 9),))
        granted = await holds.admit(TAG, one)
        assert isinstance(granted, Granted)
        async with open_reader(store_url) as reader:
            assert await records.overdue(reader, TAG, 10) == (one.hold_id,)
            assert await records.overdue(reader, TAG, 10, late_ms=60_000) == ()
            hold = await records.hold(reader, TAG, one.hold_id)
            assert hold is not None
            assert hold.admission == one
            assert (hold.grant, hold.admitted_at_ms) == (granted.output_tokens, granted.now_ms)

    run(_with(store_url, story))


@pytest.mark.parametrize("figures", [{"least": 101}, {"choices": 0}, {"input_money": 2**53}])
def test_figures_the_scripts_could_not_keep_exact_are_refused_before_they_are_sent(
    figures: dict[str, int],
) -> None:
    with pytest.raises(ValueError, match="out of range"):
        ask(**figures)


async def _with(url: str, story: Callable[[HoldStore], Awaitable[None]]) -> None:
    async with open_holds(url) as holds:
        await story(holds)
