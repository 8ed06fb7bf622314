"""Versions of a repository are registered once each, when they are whole."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from tests.homes import database, home
from tests.s3 import BUCKET, s3, s3_service

from salver.clock import SYSTEM_CLOCK
from salver.control.action import Nothing
from salver.control.actions.deployments import DEPLOY, UNDEPLOY, UndeployRequest
from salver.control.actions.models import VERSIONS, OfVersions
from salver.control.actions.registration import REGISTER
from salver.control.actions.status import STATUS
from salver.control.administration import LocalAdministration
from salver.protocol.errors import SalverError
from salver.security.access import local_principal
from salver.storage.opening import open_blobs
from salver.storage.s3_bucket import S3Bucket
from salver.storage.settings import S3Settings
from salver.testing import ManualClock
from salver.watching import BucketSource, DirectorySource, Report, Watcher, WatchOptions

__all__ = ["database", "home", "s3", "s3_service"]


class Watched:
    """A repository, the registry of a home, and one watcher after the other on both."""

    def __init__(self, root: Path, home, database) -> None:
        self.root = root
        self.root.mkdir()
        self.home = home
        self.admin = LocalAdministration(home, database, local_principal(), SYSTEM_CLOCK)
        self.admin.begin()
        self.clock = ManualClock()
        self.later(100.0)
        self.source = DirectorySource(root)
        self.reports: list[Report] = []
        self.start()

    def later(self, seconds: float) -> None:
        """So many seconds after what has been written by now."""
        now_s = SYSTEM_CLOCK.wall_s() + seconds
        self.clock.wall_s = lambda: now_s

    def start(self, **options) -> Watcher:
        given = WatchOptions(**{"settle_s": 5.0} | options)
        self.watcher = Watcher(
            self.source,
            lambda: contextlib.nullcontext(self.admin),
            lambda: open_blobs(self.home),
            given,
            self.clock,
            self.reports.append,
        )
        return self.watcher

    def put(self, path: str, source: Path) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)

    def tick(self) -> list[tuple[str, str]]:
        self.reports.clear()
        self.watcher.tick()
        return [(each.event, each.source) for each in self.reports]

    def versions(self, model: str) -> list[str]:
        return [each.metadata["source_version"] for each in self.admin.do(VERSIONS, OfVersions(model=model))]


@pytest.fixture
def watched(tmp_path: Path, home, database) -> Watched:
    return Watched(tmp_path / "models", home, database)


def test_versions_are_registered_in_order_and_each_once(watched: Watched, models: Path) -> None:
    (watched.root / "double").mkdir()
    (watched.root / "double" / "config.pbtxt").write_text('platform: "onnxruntime_onnx"')
    for number, name in ((2, "times3.onnx"), (10, "times4.onnx"), (1, "times2.onnx")):
        watched.put(f"double/{number}/model.onnx", models / name)
    assert watched.tick() == [("registered", "double/1"), ("registered", "double/2"), ("registered", "double/10")]
    assert watched.versions("double") == ["1", "2", "10"]
    manifest = watched.admin.do(VERSIONS, OfVersions(model="double"))[2]
    assert (manifest.ordinal, manifest.metadata["source"]) == (3, "models/double/10")
    assert watched.tick() == []
    watched.start()
    assert watched.tick() == []
    watched.put("double/11/model.onnx", models / "times2.onnx")
    watched.later(100.0)
    assert watched.tick() == [("registered", "double/11")]


def test_what_is_still_being_written_is_left_alone(watched: Watched, models: Path) -> None:
    watched.put("double/1/model.onnx", models / "times2.onnx")
    os.utime(watched.root / "double" / "1" / "model.onnx", (0, 0))  # as copies do that keep the time of the original
    watched.later(1.0)
    assert watched.tick() == []
    assert watched.watcher.tick() is True
    watched.later(6.0)
    assert watched.tick() == [("registered", "double/1")]


def test_the_clock_of_the_files_need_not_be_ours(watched: Watched, models: Path) -> None:
    watched.put("double/1/model.onnx", models / "times2.onnx")
    watched.later(-86_400.0)
    assert watched.tick() == []
    watched.clock.advance(4.0)
    watched.put("double/1/model.onnx", models / "times3.onnx")
    assert watched.tick() == []
    watched.clock.advance(4.0)
    assert watched.tick() == []
    watched.clock.advance(1.0)
    assert watched.tick() == [("registered", "double/1")]


def test_what_changes_while_it_is_copied_is_not_registered(watched: Watched, models: Path, monkeypatch) -> None:
    watched.put("double/1/model.onnx", models / "times2.onnx")
    copy = watched.source.copy

    def copy_and_change(file, target) -> None:
        copy(file, target)
        watched.put("double/1/model.onnx", models / "times3.onnx")
        monkeypatch.setattr(watched.source, "copy", copy)

    monkeypatch.setattr(watched.source, "copy", copy_and_change)
    assert watched.tick() == []
    watched.later(100.0)
    assert watched.tick() == [("registered", "double/1")]


def test_a_marker_says_that_a_version_is_complete(watched: Watched, models: Path) -> None:
    watched.start(done_marker="_SUCCESS")
    watched.put("double/1/model.onnx", models / "times2.onnx")
    watched.put("double/2/model.onnx", models / "times3.onnx")
    assert watched.tick() == []
    (watched.root / "double" / "2" / "_SUCCESS").touch()
    watched.later(0.0)
    assert watched.tick() == [("registered", "double/2")]
    assert [file.path for file in watched.admin.do(VERSIONS, OfVersions(model="double"))[0].files] == ["model.onnx"]


def test_what_is_bad_is_said_once_and_the_others_are_taken(watched: Watched, models: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    watched.put("bad/1/model.onnx", models / "broken.onnx")
    watched.put("bad/2/model.onnx", models / "times2.onnx")
    watched.put("double/1/model.onnx", models / "times2.onnx")
    watched.put("Bad Name/1/model.onnx", models / "times2.onnx")
    (watched.root / "pickled" / "1").mkdir(parents=True)
    (watched.root / "pickled" / "1" / "model.onnx").write_bytes(pickle.dumps(canary))
    (watched.root / "linked" / "1").mkdir(parents=True)
    (watched.root / "linked" / "1" / "model.onnx").symlink_to(models / "times2.onnx")
    (watched.root / "empty" / "1").mkdir(parents=True)
    assert sorted(watched.tick()) == [
        ("refused", "Bad Name"),
        ("refused", "bad/1"),
        ("refused", "linked/1"),
        ("refused", "pickled/1"),
        ("registered", "bad/2"),
        ("registered", "double/1"),
    ]
    assert all(str(watched.home.path) not in each.reason for each in watched.reports)
    assert watched.tick() == []
    watched.put("pickled/1/model.onnx", models / "times3.onnx")
    watched.later(100.0)
    assert watched.tick() == [("registered", "pickled/1")]
    assert not canary.exists()


def test_what_was_registered_and_what_is_older_is_left_as_it_is(watched: Watched, models: Path) -> None:
    watched.put("double/5/model.onnx", models / "times2.onnx")
    assert watched.tick() == [("registered", "double/5")]
    watched.put("double/5/model.onnx", models / "times3.onnx")
    watched.put("double/4/model.onnx", models / "times4.onnx")
    watched.later(100.0)
    assert sorted(watched.tick()) == [("left", "double/4"), ("left", "double/5")]
    assert watched.tick() == []
    assert watched.versions("double") == ["5"]


def test_the_same_bytes_under_another_number_are_known(watched: Watched, models: Path) -> None:
    watched.put("double/1/model.onnx", models / "times2.onnx")
    watched.put("double/2/model.onnx", models / "times2.onnx")
    assert watched.tick() == [("registered", "double/1"), ("known", "double/2")]
    watched.start()
    assert watched.tick() == [("known", "double/2")]
    assert len(watched.admin.do(VERSIONS, OfVersions(model="double"))) == 1


def test_the_newest_is_deployed_and_what_somebody_else_deployed_stays(watched: Watched, models: Path) -> None:
    watched.start(deploy=True)
    watched.put("double/1/model.onnx", models / "times2.onnx")
    watched.put("double/2/model.onnx", models / "times3.onnx")
    watched.put("double/3/model.onnx", models / "broken.onnx")
    assert watched.tick() == [
        ("registered", "double/1"),
        ("registered", "double/2"),
        ("refused", "double/3"),
        ("deployed", "double/2"),
    ]
    (spec,) = watched.admin.do(STATUS, Nothing()).deployments
    assert (spec.endpoint, spec.version) == ("double", "1.0.1")
    from salver.registry.deploy_request import DeployRequest

    watched.admin.do(DEPLOY, DeployRequest("double", "1.0.0"))
    assert watched.tick() == []
    watched.start(deploy=True)
    watched.tick()
    assert watched.admin.do(STATUS, Nothing()).deployments[0].version == "1.0.0"
    watched.put("double/4/model.onnx", models / "times4.onnx")
    watched.later(100.0)
    assert watched.tick() == [("registered", "double/4"), ("deployed", "double/4")]
    watched.admin.do(UNDEPLOY, UndeployRequest("double"))
    watched.start(deploy=True)
    assert ("deployed", "double/4") in watched.tick()


def test_a_registry_that_is_away_is_waited_for(watched: Watched, models: Path, monkeypatch) -> None:
    watched.put("double/1/model.onnx", models / "times2.onnx")
    do = watched.admin.do

    def away(action, asked):
        if action is REGISTER:
            raise SalverError("CONTROL_UNAVAILABLE", "away")
        return do(action, asked)

    monkeypatch.setattr(watched.admin, "do", away)
    assert watched.tick() == [("waiting", "double/1")]
    assert watched.tick() == []
    monkeypatch.setattr(watched.admin, "do", do)
    assert watched.tick() == [("registered", "double/1")]


def test_a_repository_that_is_away_is_said_once_and_waited_for(watched: Watched, models: Path) -> None:
    shutil.move(watched.root, watched.root.with_name("elsewhere"))
    assert watched.tick() == [("unreachable", "models")]
    assert watched.tick() == []
    with pytest.raises(SalverError, match="no directory 'models'"):
        watched.watcher.once(1.0)
    shutil.move(watched.root.with_name("elsewhere"), watched.root)
    watched.put("double/1/model.onnx", models / "times2.onnx")
    watched.later(100.0)
    assert watched.tick() == [("registered", "double/1")]


def test_a_saved_model_is_converted_where_the_converter_is(watched: Watched, models: Path, tmp_path: Path) -> None:
    """The converter itself is tested where it is installed; here stands one that copies."""
    converter = tmp_path / "python"
    converter.write_text(
        f'#!/bin/sh\nwhile [ "$1" != --output ]; do shift; done\ncp {models / "times2.onnx"} "$2"\n'
        'echo "Using tensorflow=2.0, onnx=1.0, tf2onnx=1.0/x" >&2\n'
    )
    converter.chmod(0o755)
    (watched.root / "tf" / "1" / "variables").mkdir(parents=True)
    (watched.root / "tf" / "1" / "saved_model.pb").write_bytes(b"\x08\x01")
    (watched.root / "tf" / "1" / "variables" / "variables.index").write_bytes(b"x")
    assert watched.tick() == [("refused", "tf/1")]
    assert "tf2onnx" in watched.reports[0].reason
    watched.start(converter=converter)
    assert watched.tick() == [("registered", "tf/1")]
    manifest = watched.admin.do(VERSIONS, OfVersions(model="tf"))[0]
    assert (manifest.format, manifest.metadata["flavor"]) == ("onnx", "tensorflow")


def test_a_bucket_is_watched_like_a_directory(watched: Watched, models: Path, s3) -> None:
    settings = S3Settings(endpoint=s3.url, allow_http=True, timeout_s=10, retries=1)
    watched.source = BucketSource(S3Bucket(f"s3://{BUCKET}/some/models", settings))
    watched.start()
    s3.put("some/models/double/1/model.onnx", (models / "times2.onnx").read_bytes())
    s3.put("some/models/double/config.pbtxt", b"x")
    s3.put("some/models/double/2/model.onnx", (models / "broken.onnx").read_bytes())
    s3.put("some/other/double/9/model.onnx", b"x")
    watched.later(1.0)
    assert watched.tick() == []
    watched.later(100.0)
    assert watched.tick() == [("registered", "double/1"), ("refused", "double/2")]
    assert watched.admin.do(VERSIONS, OfVersions(model="double"))[0].metadata["source"] == "models/double/1"
    s3.fault["*"] = lambda proxy, body: proxy.answer(500, b"no", {}) or True
    assert watched.tick() == [("unreachable", "models")]


def test_the_command_registers_what_comes_while_it_runs(tree, models: Path, tmp_path: Path) -> None:
    root = tmp_path / "repository"
    (root / "double" / "1").mkdir(parents=True)
    shutil.copyfile(models / "times2.onnx", root / "double" / "1" / "model.onnx")
    code, output, complaint = tree.attempt("watch", root, "--once", "--settle", "0.2", "--deploy")
    assert code == 0, complaint
    events = [json.loads(line) for line in output.splitlines()]
    assert [each["event"] for each in events] == ["registered", "deployed"]
    tree.start()
    arguments = ["watch", str(root), "--settle", "0.2", "--deploy"]
    process = subprocess.Popen(
        [sys.executable, "-m", "salver", "--json", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | tree.environment,
    )
    try:
        (root / "double" / "2").mkdir()
        shutil.copyfile(models / "times3.onnx", root / "double" / "2" / "model.onnx")
        seen = [json.loads(process.stdout.readline())["event"] for _ in range(2)]
        assert seen == ["registered", "deployed"]
    finally:
        process.send_signal(2)
        process.stdout.close()
        assert process.wait(10) == 130

    def answers() -> bool:
        found = tree.ask(tree.http, "POST", "/v2/models/double/infer", tree.rows([1.0, 2.0]))
        return found.status == 200 and np.allclose(found.json["outputs"][0]["data"], [3.0, 6.0])

    tree.until(answers, "the new version serves")
    (root / "double" / "3").mkdir()
    shutil.copyfile(models / "broken.onnx", root / "double" / "3" / "model.onnx")
    code, output, _ = tree.attempt("watch", root, "--once", "--settle", "0.2")
    assert (code, json.loads(output)["event"]) == (1, "refused")


def test_watching_stops_when_it_is_told_to(watched: Watched) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=watched.start(every_s=60.0).run, args=(stop,))
    thread.start()
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
