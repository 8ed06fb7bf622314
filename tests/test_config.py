from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from salver.config import ServerSettings, Settings, default_home, read_settings
from salver.gateway.limits import Limits
from salver.protocol.errors import SalverError


def refusal(file: Path | None = None, environment: dict[str, str] | None = None, **given: object) -> str:
    with pytest.raises(SalverError) as caught:
        read_settings(file, environment or {}, **given)
    assert caught.value.code == "INVALID_SETTING"
    return caught.value.message


@pytest.fixture
def toml(tmp_path: Path):
    def write(text: str) -> Path:
        (tmp_path / "salver.toml").write_text(text)
        return tmp_path / "salver.toml"

    return write


def test_without_anything_the_defaults_are_loopback_and_finite() -> None:
    settings = read_settings(None, {})
    assert settings == Settings()
    assert (settings.server.host, settings.server.control_host) == ("127.0.0.1", "127.0.0.1")
    assert not settings.server.insecure
    assert all(0 < getattr(settings.limits, name) < float("inf") for name in Limits.__struct_fields__)


def test_the_environment_overrides_the_file_and_the_command_line_both(toml) -> None:
    file = toml('[server]\nhttp = 1\ncontrol = 2\nname = "file"\n[limits]\nheaders = 7\nkeep_alive_s = 3\n')
    environment = {"SALVER_SERVER_CONTROL": "3", "SALVER_SERVER_NAME": "environment", "SALVER_LIMITS_HEADERS": "8"}
    settings = read_settings(file, environment, name="given", host=None)
    assert settings.server == ServerSettings(http=1, control=3, name="given")
    assert settings.limits == Limits(headers=8, keep_alive_s=3.0)


def test_the_environment_speaks_text(toml) -> None:
    found = read_settings(None, {"SALVER_SERVER_INSECURE": "true", "SALVER_SERVER_LAME_DUCK_S": "0.5"}).server
    assert found == ServerSettings(insecure=True, lame_duck_s=0.5)
    assert read_settings(None, {"SALVER_HOME": "/x", "SALVER_TOKEN": "t", "PATH": "p"}) == Settings()
    assert "server.http" in refusal(None, {"SALVER_SERVER_HTTP": "many"})
    assert "server.insecure" in refusal(None, {"SALVER_SERVER_INSECURE": "perhaps"})
    # A file has types of its own.
    assert "server.http" in refusal(toml('[server]\nhttp = "8080"'))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[server]\ncolour = 1", "colour"),
        ("[limits]\ncolour = 1", "colour"),
        ("[colour]\nserver = 1", "colour"),
        ("http = 1", "sections"),
        ("[server]\nhttp = 1.5", "server.http"),
        ("[server]\nhost = 1", "server.host"),
        ("[server\n", "salver.toml"),
        ("[server]\nhttp = 65536", "65536"),
        ("[server]\ncontrol = -1", "-1"),
        ('[server]\ntls_cert = "a"', "tls_key"),
        ("[server]\nlame_duck_s = -1", "lame_duck_s"),
        ("[server]\nlame_duck_s = nan", "lame_duck_s"),
        ("[server]\ndrain_s = inf", "drain_s"),
        ("[server]\nhang_s = 0", "hang_s"),
        ("[server]\naccess_log_every = -1", "access_log_every"),
        ('[server]\nlog_level = "LOUD"', "LOUD"),
        ('[server]\ndefault_endpoint = "No Name"', "server.default_endpoint"),
        ('[server]\ncsv_header = "perhaps"', "server.csv_header is 'perhaps'"),
        ('[server]\nhealth_route = "health"', "server.health_route is 'health'"),
        ('[server]\npredict_route = "/a/{b}"', "server.predict_route"),
        ('[server]\npredict_route = "/a b"', "server.predict_route"),
        ('[server]\npredict_route = "/a\\nb"', "server.predict_route"),
        ('[server]\ndefault_token = "x"\nrequire_token = true', "server.default_token"),
        ("[limits]\nheaders = 0", "limits.headers is 0"),
        ("[limits]\nkeep_alive_s = inf", "limits.keep_alive_s is inf"),
        ("[limits]\nkeep_alive_s = nan", "limits.keep_alive_s is nan"),
        ("[limits]\nbody_bytes = -5", "-5"),
    ],
)
def test_what_no_setting_is_called_or_may_be_is_refused_by_name(toml, text, says) -> None:
    assert says in refusal(toml(text))


def test_unknown_names_in_the_environment_are_refused_too() -> None:
    assert "colour" in refusal(None, {"SALVER_SERVER_COLOUR": "red"})
    assert "colour" in refusal(None, {"SALVER_LIMITS_COLOUR": "red"})


def test_a_file_that_cannot_be_read_is_named(tmp_path) -> None:
    assert "none.toml" in refusal(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    assert "bytes.toml" in refusal(tmp_path / "bytes.toml")


def test_settings_reach_the_child_processes_unchanged() -> None:
    settings = read_settings(None, {"SALVER_SERVER_LAME_DUCK_S": "0.25", "SALVER_LIMITS_BODY_BYTES": "1000"})
    assert msgspec.json.decode(msgspec.json.encode(settings), type=Settings) == settings


def test_the_home_comes_from_the_environment_or_is_in_the_users_directory() -> None:
    assert default_home({"SALVER_HOME": "/somewhere"}) == Path("/somewhere")
    assert default_home({}) == default_home({"SALVER_HOME": ""}) == Path.home() / ".salver"
