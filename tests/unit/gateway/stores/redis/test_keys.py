"""Names in the store."""

from gateway.stores.redis import keys


def test_everything_of_a_tenant_hashes_to_its_tag() -> None:
    for name in (
        keys.holds("s07"),
        keys.hold("s07", "req_1"),
        keys.journal("s07"),
        keys.account("s07", "bud_1", "m2026-11"),
        keys.gate("s07", "lim_1", "rpm"),
        keys.slots("s07", "lim_1"),
    ):
        assert name.startswith("mh:{s07}:")


def test_the_scripts_can_derive_a_record_from_the_index() -> None:
    assert keys.holds("s07")[:-1] + ":req_1" == keys.hold("s07", "req_1")
