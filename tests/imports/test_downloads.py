"""Whom an import asks, and how much it takes from them: nothing that a server says is believed."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from salver.imports import mlflow_registry
from salver.imports.downloads import Server
from salver.protocol.errors import SalverError
from salver.testing import ManualClock

Answers = dict[str, tuple[int, dict[str, str], bytes]]


@pytest.fixture
def double() -> Iterator[Callable[[Answers], str]]:
    """A server of our own that answers paths as it is told; what it was asked is in `asked`."""
    with contextlib.ExitStack() as stack:

        def start(answers: Answers) -> str:
            class Answering(http.server.BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    path = self.path.partition("?")[0]
                    status, headers, body = answers.get(path, (404, {}, b""))
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    if "Content-Length" not in headers:
                        self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    with contextlib.suppress(OSError):
                        self.wfile.write(body)

                def log_message(self, *_: object) -> None:
                    pass

            server = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering))
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}"

        yield start


def told(document: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(document).encode()


def to(*addresses: str) -> Callable[[str, int], list[str]]:
    return lambda _host, _port: list(addresses)


def refusal(act: Callable[[], object]) -> SalverError:
    with pytest.raises(SalverError) as raised:
        act()
    return raised.value


PRIVATE = ["10.0.0.1", "192.168.1.1", "169.254.169.254", "::ffff:10.0.0.1", "fe80::1", "0.0.0.0", "100.64.0.1"]


@pytest.mark.parametrize("address", PRIVATE)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_addresses_of_other_machines_inside_are_not_asked(address, scheme) -> None:
    server = Server(f"{scheme}://tracking.example", ManualClock(), resolve=to(address))
    assert refusal(lambda: server.json("/x")).code == "REFUSED_BY_POLICY"


def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    server = Server("https://tracking.example", ManualClock(), resolve=to("93.184.216.34", "127.0.0.1"))
    assert refusal(lambda: server.json("/x")).code == "REFUSED_BY_POLICY"


def test_over_http_only_this_machine_is_asked(double) -> None:
    server = Server("http://tracking.example", ManualClock(), resolve=to("93.184.216.34"))
    assert "over http" in refusal(lambda: server.json("/x")).message
    assert Server(double({"/x": told({"a": 1})}), ManualClock()).json("/x") == {"a": 1}


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://h", "http://user:secret@h", "https://h/#x", "https://", "gopher://h", "//h", ""],
)
def test_odd_urls_are_refused_without_repeating_secrets(url) -> None:
    error = refusal(lambda: Server(url, ManualClock()))
    assert error.code == "INVALID_SETTING"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(double, status) -> None:
    inner = double({"/secret": told({"canary": True})})
    outer = double({"/x": (status, {"Location": f"{inner}/secret"}, b"")})
    assert "redirect" in refusal(lambda: Server(outer, ManualClock()).json("/x")).message


ODD = {
    "an error": ((500, {}, b"{}"), "status 500"),
    "no JSON": ((200, {}, b"<html>"), "no JSON"),
    "a list": ((200, {}, b"[]"), "no JSON object"),
    "refused": ((403, {}, b""), "answers 403"),
    "cut off": ((200, {"Content-Length": "1000"}, b'{"a": 1'), "could not be asked"),
    "too large": ((200, {}, b" " * (17 << 20)), "larger than"),
}


@pytest.mark.parametrize("what", ODD)
def test_odd_answers_are_an_error_that_says_so(double, what) -> None:
    answer, says = ODD[what]
    server = Server(double({"/x": answer}), ManualClock(), headers={"authorization": "Bearer secret-canary"})
    error = refusal(lambda: server.json("/x"))
    assert says in error.message
    assert "secret-canary" not in str(error)


def test_nobody_there_and_no_such_name_are_told(double) -> None:
    assert refusal(lambda: Server("http://127.0.0.1:9", ManualClock()).json("/x")).code == "CONTROL_UNAVAILABLE"
    server = Server("https://nowhere.example", ManualClock(), resolve=to())
    assert "not known" in refusal(lambda: server.json("/x")).message


def test_a_download_ends_at_the_limit_and_at_the_time(double, tmp_path) -> None:
    url = double({"/f": (200, {}, bytes(3 << 20))})
    server = Server(url, ManualClock(), limit_bytes=4 << 20)
    assert server.download("/f", tmp_path / "a") == 3 << 20
    assert "larger than an import" in refusal(lambda: server.download("/f", tmp_path / "b")).message
    clock = ManualClock()
    server = Server(url, clock)
    clock.advance(7 * 3600.0)
    assert "longer than" in refusal(lambda: server.download("/f", tmp_path / "c")).message


def registry(uri: str, listing: dict[str, list[dict[str, Any]]]) -> Answers:
    """As much of MLflow's interface as an import asks for; the listing does not tell folders apart."""
    version = {"name": "m", "version": "1"}
    api = "/api/2.0/mlflow"
    return {
        f"{api}/registered-models/get": told({"registered_model": {"name": "m"}}),
        f"{api}/model-versions/search": told({"model_versions": [version, {"name": "other", "version": "7"}]}),
        f"{api}/model-versions/get-download-uri": told({"artifact_uri": uri}),
        "/api/2.0/mlflow-artifacts/artifacts": told(listing),
    }


EVIL = ["../../canary", "/canary", "a/../../canary", "..\\canary", "a\x00b", ".", "a//b"]


@pytest.mark.parametrize("path", EVIL)
def test_paths_that_a_server_makes_up_lead_nowhere(double, tmp_path, path) -> None:
    url = double(registry("mlflow-artifacts:/0/m", {"files": [{"path": path, "is_dir": False}]}))
    (tmp_path / "deep").mkdir()
    into = tmp_path / "deep" / "into"
    into.mkdir()
    error = refusal(lambda: mlflow_registry.convert(Server(url, ManualClock()), "models:/m", into))
    assert error.code in ("INVALID_ARTIFACT", "NOT_FOUND")
    assert not list(tmp_path.rglob("*canary*"))


def test_a_tree_without_end_is_left(double, tmp_path) -> None:
    url = double(registry("mlflow-artifacts:/0/m", {"files": [{"path": "d", "is_dir": True}]}))
    (tmp_path / "into").mkdir()
    error = refusal(lambda: mlflow_registry.convert(Server(url, ManualClock()), "models:/m/1", tmp_path / "into"))
    assert "deep" in error.message


@pytest.mark.parametrize("uri", ["file:///etc", "s3://bucket", "/etc", "../..", "", "mlflow-artifacts:/../../etc"])
def test_files_are_asked_of_the_server_itself_only(double, tmp_path, uri) -> None:
    url = double(registry(uri, {"files": []}))
    (tmp_path / "into").mkdir()
    error = refusal(lambda: mlflow_registry.convert(Server(url, ManualClock()), "models:/m/1", tmp_path / "into"))
    assert error.code in ("UNSUPPORTED", "INVALID_ARTIFACT")


@pytest.mark.parametrize("uri", ["models:/", "models:/a/b/c", "models:/a@", "runs:/x", "models:/a@b@c", "models://a"])
def test_names_that_are_none_are_refused(uri) -> None:
    assert refusal(lambda: mlflow_registry.parse_uri(uri)).code == "INVALID_SETTING"


def test_credentials_are_those_that_mlflow_reads() -> None:
    assert mlflow_registry.credentials({}) == {}
    assert mlflow_registry.credentials({"MLFLOW_TRACKING_TOKEN": "t"}) == {"authorization": "Bearer t"}
    both = {"MLFLOW_TRACKING_USERNAME": "u", "MLFLOW_TRACKING_PASSWORD": "p"}
    assert mlflow_registry.credentials(both) == {"authorization": "Basic dTpw"}
