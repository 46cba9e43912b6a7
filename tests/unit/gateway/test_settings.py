from pathlib import Path

import pytest

from gateway.settings import Settings, SettingsError, socket_path


def test_nothing_set_means_loopback_and_state_under_the_working_directory() -> None:
    settings = Settings.from_env({})

    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert (settings.admin_host, settings.admin_port) == ("127.0.0.1", 8081)
    assert settings.home == Path.cwd() / ".meterhouse"
    assert settings.redis_embedded
    assert settings.database_url == f"sqlite:///{settings.home}/meterhouse.db"
    assert settings.max_body_bytes == 32 * 1024 * 1024


def test_the_admin_listener_follows_the_port_unless_it_is_told_otherwise() -> None:
    assert Settings.from_env({"METERHOUSE_PORT": "9000"}).admin_port == 9001
    told = Settings.from_env({"METERHOUSE_ADMIN_LISTEN": "[::1]:7000"})
    assert (told.admin_host, told.admin_port) == ("::1", 7000)
    assert told.find_admin_url() == "http://[::1]:7000"


def test_a_misspelt_variable_stops_the_start_and_names_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"METERHOUSE_PROT.*did you mean METERHOUSE_PORT"):
        Settings.from_env({"METERHOUSE_PROT": "9000"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "eighty"),
        ("PORT", "70000"),
        ("PORT", "65535"),  # leaves no port for the admin listener
        ("WORKERS", "0"),
        ("WORKERS", "-1"),
        ("DRAIN_SECONDS", "1.5"),
        ("ADMIN_LISTEN", "localhost"),
        ("JURISDICTION", "DE;US"),
        ("ACCESS_LOG", "maybe"),
        ("IDEMPOTENCY_SECONDS", "59"),
        ("LEDGER_AWAY_SECONDS", "0"),
        ("JOURNAL_BYTES", "1"),
        ("IDEMPOTENCY_KEYS", "0"),
        ("STORED_ANSWER_BYTES", "-1"),
        ("READING_BYTES", "33554431"),  # the largest body would not fit
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.from_env({f"METERHOUSE_{name}": value})


def test_there_is_room_for_one_body_of_the_largest_size_unless_told_otherwise() -> None:
    assert Settings.from_env({}).reading_bytes == 256 * 1024 * 1024
    assert Settings.from_env({"METERHOUSE_MAX_BODY_BYTES": "2000000000"}).reading_bytes == 2 * 10**9
    told = {"METERHOUSE_MAX_BODY_BYTES": "2000", "METERHOUSE_READING_BYTES": "2000"}
    assert Settings.from_env(told).reading_bytes == 2000


def test_a_store_url_replaces_the_embedded_store() -> None:
    settings = Settings.from_env({"METERHOUSE_REDIS_URL": "redis://somewhere:6379/0"})

    assert settings.redis_url == "redis://somewhere:6379/0"
    assert not settings.redis_embedded


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("de, US", {"DE", "US"}),
        ("Eu", {"EU"}),  # of some member, as a backend may be labelled
        ("eu@2020-02-01,", {"EU@2020-02-01"}),
        (" , ", set()),
    ],
)
def test_jurisdictions_are_codes_in_any_case(written: str, found: set[str]) -> None:
    assert Settings.from_env({"METERHOUSE_JURISDICTION": written}).jurisdictions == found


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("Germany", "'Germany' is neither an ISO 3166-1 country code nor a group"),
        ("DE,XX", "'XX' is neither"),
        ("uk", "'uk' is not a jurisdiction; 'GB' is"),
        ("DE US", "'DE US' is neither"),
    ],
)
def test_a_place_that_no_policy_could_permit_is_refused(written: str, words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({"METERHOUSE_JURISDICTION": written})

    assert words in str(refused.value)
    assert "METERHOUSE_JURISDICTION" in str(refused.value)
    assert "such as DE or DE,US" in str(refused.value)


def test_the_socket_path_stays_short_however_deep_the_home_lies(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90)

    assert len(str(socket_path(deep))) <= 100
    assert socket_path(deep) == socket_path(deep)
    assert socket_path(deep) != socket_path(tmp_path / ("e" * 90))


def test_no_secret_shows_in_a_printed_settings() -> None:
    settings = Settings.from_env(
        {
            "METERHOUSE_ADMIN_TOKEN": "s3cret-admin-token",
            "METERHOUSE_REDIS_URL": "redis://:s3cret@store",
            "METERHOUSE_SECRET_KEY": "s3cret",
        }
    )

    assert "s3cret" not in repr(settings)
    assert "s3cret" not in f"{settings}"


def test_every_variable_stands_in_the_example_file() -> None:
    example = Path(__file__).parents[3] / "deploy" / "meterhouse.env.example"
    named = {
        line.lstrip("# ").partition("=")[0]
        for line in example.read_text().splitlines()
        if line.lstrip("# ").startswith("METERHOUSE_") and "=" in line
    }

    Settings.from_env(dict.fromkeys(named, ""))
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({"METERHOUSE_": "x"})
    assert "meterhouse.env.example" in str(refused.value)
    assert "METERHOUSE_JURISDICTION" in named
