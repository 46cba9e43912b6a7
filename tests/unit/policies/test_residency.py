from policies.residency import COUNTRIES, GROUPS, expand, fault, group, permits, summary

DE, US, EU = frozenset({"DE"}), frozenset({"US"}), expand(["EU"])


def test_the_eu_has_27_members_and_the_eea_30() -> None:
    assert len(group("EU").members) == 27
    assert len(group("EEA").members) == 30
    assert len(COUNTRIES) == 249
    assert all(each.members < COUNTRIES for each in GROUPS)


def test_a_group_permits_each_of_its_members_and_itself() -> None:
    assert group("EU").members < EU
    assert "EU" in EU
    assert "EU" in expand(["EEA"])
    assert "EEA" not in EU


def test_naming_every_member_permits_the_group() -> None:
    assert expand(sorted(group("EU").members)) == EU


def test_a_pinned_edition_names_the_same_members() -> None:
    assert expand([group("EU").pinned]) == EU


def test_an_unknown_name_permits_nothing() -> None:
    assert expand(["Germany", "de", ""]) == frozenset()


def test_every_law_that_reaches_the_backend_must_be_permitted() -> None:
    assert permits(EU, DE, DE)
    assert not permits(EU, DE | US, DE)
    assert not permits(EU, US, DE)


def test_a_backend_under_some_eu_law_is_permitted_only_where_all_of_them_are() -> None:
    some = frozenset({"EU"})

    assert permits(EU, some, DE)
    assert permits(expand(["EEA"]), some, DE)
    assert not permits(expand(["DE", "FR"]), some, DE)


def test_an_unlabelled_backend_is_permitted_nowhere_that_residency_is_required() -> None:
    assert not permits(EU, frozenset(), DE)
    assert permits(None, frozenset(), frozenset())


def test_a_gateway_that_does_not_say_where_it_stands_is_permitted_nowhere() -> None:
    assert not permits(EU, DE, frozenset())


def test_the_gateways_own_jurisdiction_must_be_permitted_too() -> None:
    assert not permits(EU, DE, US)


def test_an_empty_permission_permits_nothing() -> None:
    assert not permits(frozenset(), DE, DE)
    assert not permits(frozenset(), frozenset(), frozenset())


def test_a_fault_names_what_was_probably_meant() -> None:
    assert fault("DE") is None
    assert fault("EEA") is None
    assert fault("EU@2020-02-01") is None
    assert "'GB' is" in fault("UK")
    assert "'DE' is" in fault("de")
    assert "'EU' is" in fault("eu")
    assert "neither" in fault("Atlantis")


def test_a_summary_uses_the_fewest_words() -> None:
    assert summary(EU) == "EU"
    assert summary(expand(["EEA"])) == "EEA"
    assert summary(expand(["EU", "CH"])) == "CH, EU"
    assert summary(expand(["EU", "NO"])) == "EU, NO"
    assert summary(expand(["DE", "FR"])) == "DE, FR"
    assert summary(frozenset()) == "none"
