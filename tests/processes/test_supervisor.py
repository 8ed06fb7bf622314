"""What the supervisor decides by itself; `tests/sockets` has it with its children."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from salver.config import ServerSettings, Settings
from salver.processes import supervisor as supervisor_module
from salver.processes.child import restart_pause_s
from salver.processes.supervisor import Supervisor
from salver.protocol.errors import SalverError
from salver.storage.home import Home, Serving
from salver.testing import ManualClock


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


def supervise(home: Home, **server: object) -> Supervisor:
    settings = Settings(server=ServerSettings(**{"http": 0, "control": 0} | server))
    return Supervisor(home, settings, ManualClock())


def refusal(supervisor: Supervisor) -> SalverError:
    with pytest.raises(SalverError) as refused:
        asyncio.run(supervisor.run())
    return refused.value


def left_behind(home: Home) -> list[Path]:
    return [path for path in (home.run_path, home.serving_path) if path.exists()]


def test_a_home_that_is_served_is_refused_naming_who_serves_it(home) -> None:
    with home.lock("serve"):
        home.write_serving(Serving(os.getpid(), "http://127.0.0.1:1", "http://127.0.0.1:2"))
        assert "held by process" in refusal(supervise(home)).message


def test_what_cannot_be_opened_is_refused_and_leaves_the_home_free(home) -> None:
    assert refusal(supervise(home, host="256.1.1.1", insecure=True)).code == "INVALID_SETTING"
    assert refusal(supervise(home, host="0.0.0.0")).code == "REFUSED_BY_POLICY"
    assert refusal(supervise(home, tls_cert="none.pem", tls_key="none.pem")).code == "INVALID_SETTING"
    assert left_behind(home) == []
    assert home.holder() is None


def test_a_leash_that_cannot_end_is_refused_and_leaves_nothing(home, tmp_path) -> None:
    settings = Settings(server=ServerSettings(http=0, control=0))
    with (tmp_path / "file").open("w") as file:
        error = refusal(Supervisor(home, settings, ManualClock(), leash=file.fileno()))
    assert error.code == "INVALID_SETTING"
    assert left_behind(home) == []


def test_what_a_killed_supervisor_left_is_removed_and_nothing_else(home, tmp_path) -> None:
    inside, outside, foreign = home.run_path, tmp_path / "salver-run-abc", tmp_path / "thesis"
    for directory, run_dir in ((inside, outside), (outside, outside), (foreign, foreign)):
        directory.mkdir(exist_ok=True)
        (directory / "file").write_text("")
        home.write_serving(Serving(1, None, None, run_dir=str(run_dir)))
        supervise(home)._remove_left_behind(inside)
        assert not inside.exists()
    assert not outside.exists()
    assert (foreign / "file").exists()


def test_sockets_go_elsewhere_when_their_paths_would_be_too_long_for_the_kernel(tmp_path) -> None:
    for name, within in (("short", True), ("long" * 25, False)):
        home = Home.open(tmp_path / name)
        with supervise(home)._run_dir() as run_dir:
            assert (Path(run_dir) == home.run_path) is within
            assert Path(run_dir).stat().st_mode & 0o77 == 0
            assert len(f"{run_dir}/control.sock") < 107
        assert not Path(run_dir).exists()


@pytest.mark.parametrize(("controller", "deaths", "said"), [(True, 0, 1), (False, 1, 0), (False, 2, 1)])
def test_readiness_is_announced_once_and_without_a_controller_only_if_that_is_hopeless(
    home, capsys, controller, deaths, said
) -> None:
    from salver.processes.listeners import Listeners
    from salver.processes.order import Report

    async def announce() -> None:
        each = supervise(home, processes=2)
        each._listeners = Listeners((), None, (), "http://d", "http://c", None)
        each._announce_if_ready()
        each._servers[0].report = Report(failed=({"endpoint": "e"},), workers=(7,))
        each._announce_if_ready()
        # The same endpoint fails in every process, mostly; it is told once.
        each._servers[1].report = Report(failed=({"endpoint": "e"},), workers=(8,))
        each._controller.failures = deaths
        if controller:
            each._controller.report = Report()
        each._announce_if_ready()
        each._announce_if_ready()

    asyncio.run(announce())
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == said
    for line in lines:
        assert (line["http"], line["control"], line["grpc"], line["pid"]) == ("http://d", "http://c", None, os.getpid())
        assert (line["pids"]["workers"], line["failed"]) == ([7, 8], [{"endpoint": "e"}])


def test_a_dead_child_is_noticed_and_its_first_replacement_starts_within_the_two_seconds_promised() -> None:
    assert supervisor_module._LOOK_S + restart_pause_s(1) <= 0.5  # the rest is the child's own start
