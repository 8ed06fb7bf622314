"""`salver.Registry` against real control listeners, over TLS and plain, and on a home of this machine."""

from __future__ import annotations

import hashlib
import os
import ssl
import threading
from pathlib import Path

import pytest
import trustme
from tests.control.listening import Listening, listening

import salver
from salver.client.registry_places import repeated
from salver.protocol.errors import SalverError
from salver.protocol.stages import Stage

POLICY = """
[[transition]]
to = "production"
[[transition.gate]]
kind = "evaluation"
suite = "release"
"""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    folder = tmp_path_factory.mktemp("tls")
    issued.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return {"ssl_certfile": folder / "server.pem", "ssl_keyfile": folder / "server.pem"}, trusting


@pytest.fixture(scope="module")
def served(tmp_path_factory, certificates):
    with listening(tmp_path_factory.mktemp("registry") / "home", tls=certificates[0]) as made:
        made.admin_token = made.token("admin", "boss")
        made.developer = made.token("developer", "dev")
        yield made


@pytest.fixture(scope="module", params=["server", "home"])
def registry(request, served, certificates, tmp_path_factory):
    """The same registry as seen by two programs."""
    if request.param == "home":
        made = salver.Registry(home=tmp_path_factory.mktemp("local") / "home")
    else:
        made = salver.Registry(served.url, token=served.admin_token, verify=certificates[1])
    with made:
        yield made


def is_error(code: str):
    return pytest.raises(SalverError, check=lambda error: error.code == code)


def test_a_version_is_published_once_and_found_by_all_its_names(registry, models: Path) -> None:
    said = {"owner": "vision", "metrics": {"auc": 0.9}}
    made = registry.publish_model(
        "double", models / "times2.onnx", description=said, tags={"team": "risk"}, aliases=["champion"]
    )
    assert (made.reference, made.created, made.stage) == ("double@1.0.0", True, Stage.DEVELOPMENT)
    assert (made.description.owner, made.tags, made.aliases) == ("vision", {"team": "risk"}, ("champion",))
    again = registry.publish_model("double", str(models / "times2.onnx"), version="1.0.0")
    assert (again.reference, again.created, again.digest) == ("double@1.0.0", False, made.digest)
    for name in ("1.0.0", "champion", "latest", "development", Stage.DEVELOPMENT):
        assert registry.get_model("double", name).digest == made.digest
    assert repr(made) == "<ModelVersion double@1.0.0 in development>"
    second = registry.publish_model("double", models / "times3.onnx", description="three times")
    assert (second.version, second.description.description) == ("1.0.1", "three times")
    listed = registry.list_model_versions("double")
    assert [(each.manifest.version, each.stage) for each in listed] == [
        ("1.0.0", Stage.DEVELOPMENT),
        ("1.0.1", Stage.DEVELOPMENT),
    ]
    assert "double" in [each.name for each in registry.list_models()]
    for name, version, code in (("double", "9.9.9", "NOT_FOUND"), ("nothing", "latest", "NOT_FOUND")):
        with is_error(code):
            registry.get_model(name, version)


def test_versions_are_listed_page_by_page(registry, models: Path, monkeypatch) -> None:
    for number in ("1.0.0", "1.0.1", "1.0.2", "1.0.3", "1.1.0"):
        registry.publish_model("paged", models / "times2.onnx", version=number)
    monkeypatch.setattr("salver.control.actions.models.MOST_VERSIONS", 2)
    listed = registry.list_model_versions("paged")
    assert [each.manifest.version for each in listed] == ["1.0.0", "1.0.1", "1.0.2", "1.0.3", "1.1.0"]
    (summary,) = (each for each in registry.list_models() if each.name == "paged")
    assert (summary.versions, summary.newest, summary.latest) == (5, "1.1.0", "1.1.0")


def test_metadata_tags_and_aliases_are_changed_one_by_one(registry, models: Path) -> None:
    registry.publish_model("noted", models / "times2.onnx", description={"owner": "a", "metrics": {"auc": 0.8}})
    after = registry.log_metadata("noted", "1.0.0", owner=None, metrics={"f1": 0.7}, licence="MIT", why="as asked")
    assert (after.owner, after.metrics, after.licence) == ("", {"auc": 0.8, "f1": 0.7}, "MIT")
    assert registry.set_tags("noted", "1.0.0", {"a": "1", "b": "2"}) == {"a": "1", "b": "2"}
    assert registry.set_tags("noted", "1.0.0", {"a": None}) == {"b": "2"}
    assert registry.set_alias("noted", "champion", "1.0.0", if_version="").after.version == "1.0.0"
    with is_error("CONFLICT"):
        registry.set_alias("noted", "champion", "1.0.0", if_version="2.0.0")
    assert registry.remove_alias("noted", "champion").after is None
    found = next(each for each in registry.changes(0, actions=["describe"], subjects=["noted"]))
    assert (found.subject, found.why) == ("noted@1.0.0", "as asked")
    for fields in ({"no_such_field": 1}, {"metrics": {"auc": "high"}}, {"metrics": object()}):
        with is_error("INVALID_PARAMETER"):
            registry.log_metadata("noted", "1.0.0", **fields)
    assert registry.search(filter='licence = "MIT"').hits


def test_where_a_version_comes_from_is_found_out(registry, models: Path, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a,b,y\n1,2,0\n3,4,1\n")
    (tmp_path / "lock.txt").write_text("numpy==2.0\n")
    version = registry.publish_model(
        "traced",
        models / "times2.onnx",
        training_data=tmp_path / "train.csv",
        target="y",
        lock=tmp_path / "lock.txt",
        description={"training_data": {"name": "pairs"}},
    )
    data = version.description.training_data
    assert (data.name, data.rows, data.digest) == (
        "pairs", 2, hashlib.sha256((tmp_path / "train.csv").read_bytes()).hexdigest(),
    )  # fmt: skip
    assert version.description.environment == "numpy==2.0\n"
    assert [feature.high for feature in version.manifest.profile.inputs[0].features] == [3, 4]


def test_a_download_is_what_was_published_and_leaves_nothing_half(registry, models: Path, tmp_path: Path) -> None:
    artifact = tmp_path / "artifact"
    (artifact / "docs").mkdir(parents=True)
    (artifact / "model.onnx").write_bytes((models / "times2.onnx").read_bytes())
    large = os.urandom(5_000_000)
    (artifact / "docs" / "read me ü.bin").write_bytes(large)
    (artifact / "empty.txt").touch()
    seen: dict[str, list[tuple[int, int]]] = {}
    told = lambda path, done, size: seen.setdefault(path, []).append((done, size))  # noqa: E731
    version = registry.publish_model("whole", artifact, progress=told)
    if "server" in repr(registry) or "https" in repr(registry):
        assert seen["docs/read me ü.bin"][-1] == (5_000_000, 5_000_000)
        assert len(seen["docs/read me ü.bin"]) > 3
    seen.clear()
    where = version.download(tmp_path / "there" / "copy", progress=told)
    assert sorted(path.relative_to(where).as_posix() for path in where.rglob("*") if path.is_file()) == sorted(
        file.path for file in version.manifest.files
    )
    assert (where / "docs" / "read me ü.bin").read_bytes() == large
    assert seen["docs/read me ü.bin"][-1] == (5_000_000, 5_000_000)
    with is_error("ALREADY_EXISTS"):
        version.download(where)
    assert list((tmp_path / "there").iterdir()) == [where]


def test_a_stage_is_reached_or_the_gates_that_are_closed_are_raised(registry, models: Path) -> None:
    version = registry.publish_model("staged", models / "times2.onnx")
    assert registry.update_model_stage("staged", "1.0.0", "validation", why="looks well").moved
    assert registry.update_model_stage("staged", "1.0.0", Stage.VALIDATION).already
    assert registry.update_model_stage("staged", version.version, "staging").moved
    _set_policy(registry, POLICY)
    try:
        assert not registry.update_model_stage("staged", "1.0.0", "production", dry_run=True).moved
        with pytest.raises(SalverError, match="release") as raised:
            registry.update_model_stage("staged", "1.0.0", "production")
        assert raised.value.code == "REFUSED_BY_POLICY"
        document = {"suite": "release", "verdict": "successful", "digest": version.digest}
        assert registry.record_evaluation("staged", "1.0.0", document).created
        assert not registry.record_evaluation("staged", "1.0.0", document).created
        assert registry.evaluations("staged")[0].suite == "release"
        done = registry.update_model_stage("staged", "1.0.0", "production", if_stage="staging")
        assert done.stage == "production"
    finally:
        _set_policy(registry, "")
    with is_error("ILLEGAL_TRANSITION"):
        registry.update_model_stage("staged", "1.0.0", "development")
    with is_error("INVALID_PARAMETER"):
        registry.update_model_stage("staged", "1.0.0", "heaven")
    assert registry.deploy("staged", "production").version == "1.0.0"


def _set_policy(registry, text: str) -> None:
    from salver.control.actions.lifecycle import SET_POLICY, NewPolicy

    registry._do(SET_POLICY, NewPolicy(text))


def test_approvals_are_those_of_the_token(served: Listening, certificates, models: Path) -> None:
    with salver.Registry(served.url, token=served.admin_token, verify=certificates[1]) as boss:
        boss.publish_model("approved", models / "times2.onnx")
    token = served.token("approver", "ann")
    with salver.Registry(served.url, token=token, verify=certificates[1]) as ann:
        assert ann.approve("approved", "1.0.0", "validation", why="seen").approval.approved_by == "ann"
        with pytest.raises(SalverError, match="the token may not register; use one with the role") as refused:
            ann.publish_model("approved", models / "times3.onnx")
        assert refused.value.code == "PERMISSION_DENIED"


def test_what_a_token_may_not_do_is_refused_before_a_byte_is_sent(served, certificates, models, tmp_path) -> None:
    pickled = tmp_path / "model.pkl"
    pickled.write_bytes(b"\x80\x04N.")
    with salver.Registry(served.url, token=served.developer, verify=certificates[1]) as developer:
        with is_error("REFUSED_BY_POLICY"):
            developer.publish_model("code", pickled)
        with is_error("PERMISSION_DENIED"):
            developer.publish_model("code", pickled, trust_code=True)
        with is_error("PERMISSION_DENIED"):
            developer.set_alias("double", "champion", "1.0.0")
    with salver.Registry(served.url, token="wrong", verify=certificates[1]) as nobody, is_error("UNAUTHENTICATED"):
        nobody.publish_model("code", models / "times2.onnx")


def test_what_is_there_already_is_not_sent_again(served, certificates, tmp_path, models) -> None:
    artifact = tmp_path / "artifact"
    artifact.mkdir()
    (artifact / "model.onnx").write_bytes((models / "times2.onnx").read_bytes())
    (artifact / "large.bin").write_bytes(os.urandom(2_000_000))
    with salver.Registry(served.url, token=served.developer, verify=certificates[1]) as developer:
        developer.publish_model("sent", artifact)
        (artifact / "note.txt").write_text("another file")
        steps = []
        developer.publish_model("sent", artifact, progress=lambda *step: steps.append(step))
    assert [step for step in steps if step[0] == "large.bin"] == [("large.bin", 2_000_000, 2_000_000)]


def test_a_file_that_changes_on_its_way_is_refused(served, certificates, tmp_path, models, monkeypatch) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes((models / "times4.onnx").read_bytes() + b"\x00")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with salver.Registry(served.url, token=served.developer, verify=certificates[1]) as developer:
        send = developer._place._send

        def change_and_send(entry, where, progress) -> None:
            path.write_bytes(b"\x01" * path.stat().st_size)
            send(entry, where, progress)

        monkeypatch.setattr(developer._place, "_send", change_and_send)
        with is_error("INVALID_ARTIFACT"):
            developer.publish_model("changed", path)
    assert digest not in served.blobs()


def test_a_rotten_file_is_not_downloaded(served, certificates, tmp_path, models) -> None:
    artifact = tmp_path / "artifact"
    artifact.mkdir()
    (artifact / "model.onnx").write_bytes((models / "times2.onnx").read_bytes())
    data = os.urandom(3_000_000)
    (artifact / "large.bin").write_bytes(data)
    with salver.Registry(served.url, token=served.developer, verify=certificates[1]) as developer:
        version = developer.publish_model("rotten", artifact)
        blob = served.home.blobs_path / hashlib.sha256(data).hexdigest()
        blob.chmod(0o600)
        blob.write_bytes(b"x" + data[1:])
        with pytest.raises(SalverError) as raised:
            version.download(tmp_path / "copy")
        assert raised.value.code in ("CORRUPT_ARTIFACT", "CONTROL_UNAVAILABLE")
        assert not (tmp_path / "copy").exists()
        assert list(tmp_path.iterdir()) == [artifact]


def test_changes_come_as_they_happen(served, certificates, models) -> None:
    with (
        salver.Registry(served.url, token=served.admin_token, verify=certificates[1]) as watching,
        salver.Registry(served.url, token=served.admin_token, verify=certificates[1]) as changing,
    ):
        changing.publish_model("followed", models / "times2.onnx")
        begun, came = threading.Event(), []

        def watch() -> None:
            feed = watching.changes(served.admin.records.journal.head()[0], actions=["tag"], subjects=["followed"])
            begun.set()
            came.extend([next(feed), next(feed)])

        thread = threading.Thread(target=watch)
        thread.start()
        begun.wait(10)
        for value in ("1", "2"):
            changing.set_tags("followed", "1.0.0", {"n": value}, why=f"why {value}")
        thread.join(20)
    assert [record.why for record in came] == ["why 1", "why 2"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"url": "http://models.example.com:8090", "token": "t"}, "REFUSED_BY_POLICY"),
        ({"url": "grpc://localhost:1", "token": "t"}, "INVALID_SETTING"),
        ({"url": "nonsense", "token": "t"}, "INVALID_SETTING"),
        ({"url": "https://localhost:1"}, "UNAUTHENTICATED"),
        ({"url": "https://localhost:1", "token": "a b\n"}, "INVALID_SETTING"),
        ({"url": "https://localhost:1", "home": "x"}, "INVALID_SETTING"),
        ({"url": "https://localhost:1", "token": "t", "timeout_s": 0}, "INVALID_SETTING"),
    ],
)
def test_what_cannot_be_a_registry_is_refused(monkeypatch, options, code) -> None:
    monkeypatch.delenv("SALVER_TOKEN", raising=False)
    with is_error(code):
        salver.Registry(**options)


def test_nobody_there_and_a_certificate_of_somebody_else_are_errors(served, models, monkeypatch) -> None:
    monkeypatch.setattr("salver.client.registry_places._FIRST_PAUSE_S", 0.001)
    with salver.Registry("http://localhost:1", token="t") as nobody, is_error("CONTROL_UNAVAILABLE"):
        nobody.get_model("double")
    with salver.Registry(served.url, token="t") as untrusting, is_error("CONTROL_UNAVAILABLE"):
        untrusting.get_model("double")


@pytest.mark.parametrize(
    ("method", "code", "tries"),
    [
        ("GET", "CONTROL_UNAVAILABLE", 4),
        ("PUT", "STORE_UNAVAILABLE", 4),
        ("POST", "QUEUE_FULL", 4),
        ("POST", "CONTROL_UNAVAILABLE", 1),
        ("GET", "NOT_FOUND", 1),
    ],
)
def test_only_what_may_be_asked_twice_is(monkeypatch, method, code, tries) -> None:
    monkeypatch.setattr("salver.client.registry_places._FIRST_PAUSE_S", 0.001)
    asked = []

    def ask() -> None:
        asked.append(1)
        raise SalverError(code, "no")

    with is_error(code):
        repeated(method, ask)
    assert len(asked) == tries


def test_a_home_that_is_not_there_is_an_error_until_something_is_published(tmp_path: Path, models: Path) -> None:
    registry = salver.Registry(home=tmp_path / "typo")
    for read in (registry.list_models, registry.deployments, lambda: registry.get_model("double")):
        with pytest.raises(SalverError, match=r"there is no home .*typo") as raised:
            read()
        assert raised.value.code == "NOT_FOUND"
    assert list(tmp_path.iterdir()) == []
    registry.publish_model("double", models / "times2.onnx")
    assert [each.name for each in registry.list_models()] == ["double"]
