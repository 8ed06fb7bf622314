from __future__ import annotations

import http.client
import ssl

import pytest
import trustme


@pytest.fixture
def certificate(tmp_path):
    """A certificate for 127.0.0.1 and who signed it."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "tls.crt")
    issued.private_key_pem.write_to_path(tmp_path / "tls.key")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return tmp_path


def test_listening_elsewhere_is_refused_with_the_remedy_and_allowed_loudly_with_insecure(tree, models) -> None:
    for option in (["--host", "0.0.0.0"], ["--host", "0.0.0.0", "--require-token"]):
        code, _, complaint = tree.attempt("serve", "--http", "0", "--control", "0", *option)
        assert code == 3
        assert "--tls-cert" in complaint
        assert "--insecure" in complaint
        assert not (tree.home / "run").exists()
    refused = tree.command("serve", "--http", "0", "--control", "0", SALVER_SERVER_CONTROL_HOST="0.0.0.0")
    assert refused.returncode == 3
    tree.salver("register", "double", models / "times2.onnx")
    tree.salver("deploy", "double")
    line = tree.start("--host", "0.0.0.0", "--insecure")
    assert line["http"].startswith("http://0.0.0.0:")
    assert line["control"].startswith("http://127.0.0.1:")
    assert tree.predict("double", [1, 2]) == [2, 4]
    assert "salver_insecure 1" in tree.get("/metrics").body.decode()
    assert len(tree.events("insecure")) == 1


def test_on_loopback_nothing_is_insecure(shared) -> None:
    assert "salver_insecure 0" in shared.get("/metrics").body.decode()


def test_tls_and_a_token_open_another_address(tree, models, certificate) -> None:
    tree.salver("register", "double", models / "times2.onnx")
    tree.salver("deploy", "double")
    token = tree.salver("token", "create", "app", "--role", "predictor")["token"]
    tls = ("--tls-cert", str(certificate / "tls.crt"), "--tls-key", str(certificate / "tls.key"))
    code, _, complaint = tree.attempt("serve", "--http", "0", "--control", "0", "--host", "0.0.0.0", *tls)
    assert code == 3
    assert "credentials" in complaint
    line = tree.start("--host", "0.0.0.0", "--require-token", *tls)
    assert line["http"].startswith("https://0.0.0.0:")
    assert line["control"].startswith("https://127.0.0.1:")
    trusted = ssl.create_default_context(cafile=certificate / "ca.pem")
    for url, path, asking, status in (
        (line["http"], "/v2", {}, 401),
        (line["http"], "/v2", {"Authorization": f"Bearer {token}"}, 200),
        (line["http"], "/v2/health/ready", {}, 200),
        (line["control"], "/v1/status", {"Authorization": f"Bearer {token}"}, 403),
        (line["control"], "/v1/status", {"Authorization": f"Bearer {tree.admin_token}"}, 200),
    ):
        connection = http.client.HTTPSConnection("127.0.0.1", int(url.rpartition(":")[2]), context=trusted, timeout=20)
        connection.request("GET", path, headers=asking)
        assert connection.getresponse().status == status, path
        connection.close()
    # The command line needs neither port nor certificate, and predictions do with --ca.
    assert tree.salver("status")["endpoints"][0]["state"] == "ready"
    url = line["http"].replace("0.0.0.0", "127.0.0.1")
    (certificate / "rows.csv").write_text("1,2")
    asking = ("--url", url, "--ca", certificate / "ca.pem", "--token", token, "--input", certificate / "rows.csv")
    assert tree.salver("predict", "double", *asking)["outputs"] == {"y": [[2, 4]]}
    assert not tree.events("insecure")
    # A damaged key is refused before anything starts.
    (certificate / "tls.key").write_text("no key")
    code, _, complaint = tree.attempt("serve", "--home", certificate / "other", "--http", "0", "--control", "0", *tls)
    assert code == 1
    assert "INVALID_SETTING" in complaint


def test_with_require_token_strangers_on_this_machine_are_asked_too(tree, models) -> None:
    tree.salver("register", "double", models / "times2.onnx")
    tree.salver("deploy", "double")
    tree.start("--require-token")
    assert tree.infer("double", [1, 2]).status == 401
    assert tree.get("/metrics").status == 401
    assert tree.get("/v2/health/ready").status == 200
    developer = tree.token("someone", "developer")
    tree.until(lambda: tree.infer("double", [1, 2], token=developer).status == 200, "the token is published", 2)


def test_a_control_listener_on_an_address_still_takes_commands(tree) -> None:
    tree.start(SALVER_SERVER_CONTROL_HOST="127.0.0.2")
    assert tree.control.startswith("http://127.0.0.2:")
    assert tree.salver("models") == []
    assert tree.administer("GET", "/v1/models").json == []
