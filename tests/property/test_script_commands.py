"""A call of a script is the command that any client of the store would send."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.stores.redis.channel import pack
from gateway.stores.redis.scripts import ADMIT

KEYS = st.lists(st.text(max_size=20), max_size=3).map(tuple)


@given(KEYS, st.lists(st.binary(max_size=40), max_size=40))
def test_a_call_of_a_script_is_what_hiredis_would_send(
    keys: tuple[str, ...], args: list[bytes]
) -> None:
    assert ADMIT.packed(keys, args) == pack(b"EVALSHA", ADMIT.sha, len(keys), *keys, *args)
