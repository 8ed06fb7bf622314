from __future__ import annotations

import contextlib
import json
import socket
from urllib.parse import urlsplit

import pytest

from salver.control.routes import ROUTES
from salver.security.access import Operation, Role

READERS = {"admin", "operator", "approver", "developer"}
GOLDEN = {
    "GET /v1/status": READERS,
    "GET /v1/models": READERS,
    "GET /v1/models/{model}": READERS,
    "GET /v1/models/{model}/compatibility": READERS,
    "GET /v1/models/{model}/cases": READERS,
    "POST /v1/models/{model}/cases": {"admin", "operator", "developer"},
    "DELETE /v1/models/{model}/cases/{case}": {"admin", "operator"},
    "POST /v1/storage/collect": {"admin", "operator"},
    "GET /v1/models/{model}/aliases": READERS,
    "PUT /v1/models/{model}/aliases/{alias}": {"admin", "operator"},
    "DELETE /v1/models/{model}/aliases/{alias}": {"admin", "operator"},
    "GET /v1/models/{model}/versions/{version}": READERS,
    "GET /v1/models/{model}/versions/{version}/card": READERS,
    "GET /v1/models/{model}/versions/{version}/datasheet": READERS,
    "GET /v1/models/{model}/versions/{version}/checklist": READERS,
    "PATCH /v1/models/{model}/versions/{version}/description": {"admin", "operator", "developer"},
    "PATCH /v1/models/{model}/versions/{version}/tags": {"admin", "operator", "developer"},
    "POST /v1/versions": {"admin", "operator", "developer"},
    "POST /v1/models/{model}/versions": {"admin", "operator", "developer"},
    "HEAD /v1/blobs/{sha256}": {"admin", "operator", "developer"},
    "PUT /v1/blobs/{sha256}": {"admin", "operator", "developer"},
    "GET /v1/models/{model}/versions/{version}/files/{path}": READERS,
    "GET /v1/models/{model}/versions/{version}/attestation": READERS,
    "POST /v1/models/{model}/versions/{version}/revocation": {"admin", "operator"},
    "GET /v1/revocations": READERS,
    "GET /v1/deletions": READERS,
    "POST /v1/models/{model}/versions/{version}/deletion": {"admin"},
    "GET /v1/keys": READERS,
    "POST /v1/keys": {"admin"},
    "POST /v1/keys/rotation": {"admin"},
    "DELETE /v1/keys/{key_id}": {"admin"},
    "GET /v1/stages": READERS,
    "POST /v1/models/{model}/versions/{version}/stage": {"admin", "operator", "developer"},
    "GET /v1/decisions": READERS,
    "GET /v1/models/{model}/versions/{version}/approvals": READERS,
    "POST /v1/models/{model}/versions/{version}/approvals": {"admin", "approver"},
    "DELETE /v1/models/{model}/versions/{version}/approvals/{target}": {"admin", "approver"},
    "GET /v1/policy": READERS,
    "PUT /v1/policy": {"admin"},
    "POST /v1/models/{model}/versions/{version}/evaluations": {"admin", "operator", "developer"},
    "GET /v1/evaluations": READERS,
    "GET /v1/models/{model}/versions/{version}/lineage": READERS,
    "GET /v1/models/{model}/versions/{version}/breakage": READERS,
    "GET /v1/impact": READERS,
    "POST /v1/search": READERS,
    "POST /v1/search/embeddings": {"admin", "operator"},
    "POST /v1/recommendations": READERS,
    "GET /v1/retirements": READERS,
    "POST /v1/retirements": {"admin", "operator"},
    "POST /v1/retirements/run": {"admin", "operator"},
    "DELETE /v1/models/{model}/versions/{version}/retirement": {"admin", "operator"},
    "GET /v1/holds": READERS,
    "PUT /v1/models/{model}/versions/{version}/hold": {"admin", "operator", "approver"},
    "DELETE /v1/models/{model}/versions/{version}/hold": {"admin", "operator", "approver"},
    "POST /v1/deployments": {"admin", "operator"},
    "DELETE /v1/deployments/{endpoint}": {"admin", "operator"},
    "GET /v1/isolated": READERS,
    "DELETE /v1/isolated/{reference}": {"admin", "operator"},
    "GET /v1/tokens": {"admin"},
    "POST /v1/tokens": {"admin"},
    "DELETE /v1/tokens/{token}": {"admin"},
    "GET /v1/jobs": {"admin", "operator"},
    "GET /v1/jobs/{job}": {"admin", "operator"},
    "DELETE /v1/jobs/{job}": {"admin", "operator"},
    "GET /v1/webhooks": {"admin", "operator"},
    "GET /v1/webhooks/{webhook}/changes": {"admin", "operator"},
    "POST /v1/webhooks/{webhook}/redelivery": {"admin", "operator"},
    "GET /v1/models/{model}/retraining": READERS,
    "POST /v1/models/{model}/retraining/hook": {"admin"},
    "POST /v1/models/{model}/retraining": {"admin", "operator"},
    "POST /v1/models/{model}/retraining/end": {"admin", "operator"},
    "GET /v1/changes": {"admin", "operator", "approver"},
    "POST /v1/webhooks": {"admin", "operator"},
    "DELETE /v1/webhooks/{webhook}": {"admin", "operator"},
    "GET /v1/audit": {"admin", "operator", "approver"},
    "GET /v1/audit/verification": {"admin", "operator", "approver"},
    "POST /v1/audit/verification": {"admin", "operator", "approver"},
    "POST /v1/audit/heads": {"admin", "operator", "approver"},
    "POST /v1/audit/key": {"admin"},
    "GET /v1/audit/records/{seq}/proof": {"admin", "operator", "approver"},
    "GET /v1/history/{name}": {"admin", "operator", "approver"},
    "POST /v2/repository/{repository}/index": READERS,
    "POST /v2/repository/index": READERS,
    "POST /v2/repository/models/{model}/load": {"admin", "operator"},
    "POST /v2/repository/models/{model}/unload": {"admin", "operator"},
    "GET /models": READERS,
    "POST /models": {"admin", "operator"},
    "GET /models/{model}": READERS,
    "PUT /models/{model}": {"admin", "operator"},
    "DELETE /models/{model}": {"admin", "operator"},
    "GET /models/{model}/{version}": READERS,
    "PUT /models/{model}/{version}": {"admin", "operator"},
    "DELETE /models/{model}/{version}": {"admin", "operator"},
    "PUT /models/{model}/{version}/set-default": {"admin", "operator"},
}
"""Who may do what, written down by hand: a change of it is a decision."""

VERSION = {"model": "none", "format": "onnx", "files": [], "signature": {"inputs": [], "outputs": []}}
BODIES = {
    # Each is refused after the role has been checked, so that nothing changes.
    "POST /v1/versions": VERSION | {"model": "Bad Name"},
    "POST /v1/models/{model}/versions": {"files": []},
    "POST /v1/models/{model}/versions/{version}/revocation": {"why": "a test"},
    "POST /v1/models/{model}/versions/{version}/deletion": {"why": "a test"},
    "POST /v1/keys": {"pem": "no key", "name": "none"},
    "POST /v1/deployments": {"model": "nothing-of-that-name"},
    "POST /v1/models/{model}/versions/{version}/stage": {"target": "validation"},
    "POST /v1/models/{model}/versions/{version}/approvals": {"target": "validation"},
    "PUT /v1/policy": {"text": "[[wrong"},
    "POST /v1/search": {"words": "x", "limit": 0},
    "POST /v1/recommendations": {},
    "POST /v1/models/{model}/cases": {"request": "{}", "expect": [{"kind": "refused"}], "source": "a test"},
    "POST /v1/models/{model}/versions/{version}/evaluations": {"document": {}},
    "PUT /v1/models/{model}/versions/{version}/hold": {"why": "a test"},
    "POST /v1/audit/verification": {"heads": []},
    "PUT /v1/models/{model}/aliases/{alias}": {"version": "1.0.0"},
    "PATCH /v1/models/{model}/versions/{version}/description": {"changes": {}},
    "PATCH /v1/models/{model}/versions/{version}/tags": {"tags": {}},
    "POST /v1/tokens": {"name": "Bad Name", "role": "predictor"},
    "POST /v1/webhooks/{webhook}/redelivery": {},
    "POST /v1/models/{model}/retraining": {},
    "POST /v1/models/{model}/retraining/end": {"run": 1},
    "POST /v1/webhooks": {"name": "Bad Name", "url": "https://a.example/"},
}


@pytest.fixture(scope="module")
def tokens(shared) -> dict[str, str]:
    """A token for each role."""
    return {role.value: shared.token(f"control-{role}", role.value) for role in Role}


def test_the_golden_table_covers_every_route() -> None:
    assert {f"{route.method} {route.template}" for route in ROUTES} == set(GOLDEN)
    assert all(route.operation in Operation for route in ROUTES)


@pytest.mark.parametrize("name", GOLDEN)
def test_each_role_may_do_what_the_golden_table_says_and_nothing_else(shared, tokens, name) -> None:
    method, _, template = name.partition(" ")
    path = template.replace("{model}", "nothing").replace("{endpoint}", "nothing").replace("{token}", "nothing")
    path = path.replace("{reference}", "nothing@1.0.0").replace("{repository}", "any")
    body = BODIES.get(name)
    allowed = set()
    for role, token in tokens.items():
        answer = shared.administer(method, path, body, token=token)
        assert answer.status != 401
        if answer.code != "PERMISSION_DENIED":
            allowed.add(role)
            assert answer.status in (200, 400, 404), answer.body
        else:
            assert answer.status == 403
            assert method == "HEAD" or role in answer.json["message"]
    assert allowed == GOLDEN[name]
    answer = shared.administer(method, path, body, token=None)
    assert (answer.status, answer.code) == (401, "UNAUTHENTICATED")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/v1/status", "/v1/models", "/v2/repository/index", "/models"])
def test_a_wrong_token_is_worth_no_more_than_none(shared, tokens, path) -> None:
    last = "1" if tokens["admin"].endswith("0") else "0"
    for wrong in ("nonsense", tokens["admin"][:-1] + last, f"Basic {tokens['admin']}"):
        answer = shared.administer("POST" if "index" in path else "GET", path, token=wrong)
        assert (answer.status, answer.code) == (401, "UNAUTHENTICATED")


def test_openapi_lists_exactly_the_routes_and_the_pages_need_no_token(shared) -> None:
    document = shared.administer("GET", "/openapi.json", token=None)
    assert document.status == 200
    listed = {
        f"{verb.upper()} {path}": entry["x-salver-operation"]
        for path, verbs in document.json["paths"].items()
        for verb, entry in verbs.items()
    }
    assert listed == {f"{route.method} {route.template}": str(route.operation) for route in ROUTES}
    page = shared.administer("GET", "/docs", token=None)
    assert page.headers["content-type"].startswith("text/html")
    assert all(f"<code>{route.template}</code>" in page.body.decode() for route in ROUTES)
    assert shared.administer("GET", "/v2/health/live", token=None).json == {"live": True}


@pytest.mark.parametrize("path", ["/v1/status", "/docs", "/openapi.json", "/v2/health/live", "/no/such/page"])
def test_a_host_header_of_another_site_is_refused_everywhere(shared, path) -> None:
    for host in ("evil.example", "evil.example:8090", "127.0.0.1.evil.example", ""):
        answer = shared.administer("GET", path, headers={"Host": host})
        assert (answer.status, answer.code) == (421, "MISDIRECTED_HOST"), host
    for host in ("localhost", "127.0.0.1:1234", "[::1]:8090"):
        assert shared.administer("GET", path, headers={"Host": host}).status in (200, 404)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"[]", "Expected `object`"),
        (b'{"model": 1}', "Expected `str`"),
        (b'{"model": "double", "colour": "red"}', "unknown field `colour`"),
        (b'{"endpoint": "x"}', "missing required field `model`"),
        (b'\xff{"model": "double"}', "malformed"),
        (b'{"model": "double", "settings": ' + b"[" * 100_000, "body"),
    ],
)
def test_a_body_that_is_not_what_the_route_takes_is_400_and_says_why(shared, body, says) -> None:
    answer = shared.administer("POST", "/v1/deployments", body)
    assert answer.status == 400
    assert answer.code == "INVALID_JSON"
    assert says in answer.json["message"]
    assert set(answer.json) == {"error", "code", "message", "remedy"}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"colour": "red"}, "colour"),
        ({"replicas": 0}, "replicas"),
        ({"replicas": "2"}, "Expected `int`"),
        ({"placement": "moon"}, "moon"),
        ({"runtime": {"threads": 0}}, "threads"),
        ({"runtime": {"speed": 1}}, "speed"),
    ],
)
def test_a_setting_that_is_none_or_out_of_range_is_refused_by_name(shared, settings, says) -> None:
    answer = shared.administer("POST", "/v1/deployments", {"model": "double", "endpoint": "e", "settings": settings})
    assert (answer.status, answer.code) == (400, "INVALID_SETTING")
    assert says in answer.json["message"]
    assert [row["endpoint"] for row in shared.salver("status")["deployments"]] == ["double"]


def test_an_oversized_body_is_413_whether_declared_or_not(shared) -> None:
    declared = shared.administer("POST", "/v1/versions", headers={"Content-Length": str(17 * 2**20)})
    assert (declared.status, declared.code) == (413, "BODY_TOO_LARGE")
    place = urlsplit(shared.control)
    with socket.create_connection((place.hostname, place.port), timeout=20) as client:
        client.sendall(
            b"POST /v1/versions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
            b"Authorization: Bearer " + shared.admin_token.encode() + b"\r\n\r\n"
        )
        chunk = b"%x\r\n%b\r\n" % (2**20, b"1" * 2**20)
        with contextlib.suppress(OSError):
            for _ in range(18):
                client.sendall(chunk)
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")
    assert shared.administer("GET", "/v1/status").status == 200


def test_headers_that_never_end_are_cut_off(shared) -> None:
    place = urlsplit(shared.control)
    with socket.create_connection((place.hostname, place.port), timeout=20) as client:
        with contextlib.suppress(OSError):
            client.sendall(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 2**18)
        answer = client.recv(200)
    assert answer.startswith(b"HTTP/1.1 4")
    assert shared.administer("GET", "/v1/status").status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v1/status/", 404),
        ("GET", "/v1/models/no-such-model", 404),
        ("GET", "/v1/models/%2e%2e%2fsalver.db", 404),
        ("DELETE", "/v1/tokens/xyz", 404),
        ("DELETE", "/v1/deployments/nothing", 404),
        ("POST", "/v1/status", 405),
        ("PUT", "/v1/deployments", 405),
        ("POST", "/docs", 405),
        ("GET", "/v1/audit?limit=-1", 400),
        ("GET", "/v1/audit?limit=ten", 400),
        ("GET", "/v1/audit?limit=1001", 400),
        ("GET", "/v1/audit?after=99999999999999999999", 400),
    ],
)
def test_what_is_not_there_is_an_error_in_json_without_a_stack_trace(shared, method, path, status) -> None:
    answer = shared.administer(method, path, b"" if method in ("POST", "PUT") else None)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.code == answer.json["code"]
    assert "Traceback" not in answer.json["error"]
    assert str(shared.home) not in answer.body.decode()
    if status == 405:
        assert answer.headers["allow"]


@pytest.mark.parametrize(
    "path",
    [
        *("/v2/models", "/v2/models/double/infer", "/v1/models/double:predict", "/v1/embeddings"),
        *("/predictions/double", "/invocations"),
    ],
)
def test_who_asks_here_for_a_prediction_is_told_where_they_are(shared, path: str) -> None:
    assert "predictions are on the data listener" in shared.administer("POST", path, b"{}").json["error"]


def test_a_revoked_token_stops_working_on_both_listeners_on_one_of_them_at_once(shared) -> None:
    made = shared.administer("POST", "/v1/tokens", {"name": "short-lived", "role": "operator"}).json
    token, token_id = made["token"], made["record"]["id"]
    assert shared.administer("GET", "/v1/status", token=token).status == 200
    shared.until(lambda: shared.get("/v2", token=token).status == 200, "the data listener knows the token")
    assert shared.administer("DELETE", f"/v1/tokens/{token_id}").status == 200
    assert shared.administer("GET", "/v1/status", token=token).status == 401
    shared.until(lambda: shared.get("/v2", token=token).status == 401, "the data listener has forgotten it")
    assert token_id not in {row["id"] for row in shared.administer("GET", "/v1/tokens").json}


def test_the_journal_says_who_did_it(shared) -> None:
    name = "journalled"
    shared.token(name, "developer")
    records = shared.administer("GET", "/v1/audit?limit=1000").json
    assert (records[-1]["actor"], records[-1]["action"]) == ("admin", "create_token")
    assert records[0]["actor"].startswith("local:")
    assert json.dumps(records).count("slv_") == 0
    check = shared.administer("GET", "/v1/audit/verification").json
    assert (check["ok"], check["records"], check["bad_seq"]) == (True, len(records), None)


def test_the_journal_says_on_what_request_and_why(shared) -> None:
    headers = {"x-request-id": "ticket 7/1", "x-salver-why": "f%C3%BCr die Nacht"}
    answer = shared.administer("POST", "/v1/tokens", {"name": "occasional", "role": "predictor"}, headers=headers)
    assert (answer.status, answer.headers["x-request-id"]) == (200, "ticket 7/1")
    (record,) = shared.administer("GET", "/v1/audit?last=true&limit=1").json
    assert (record["request_id"], record["why"]) == ("ticket 7/1", "für die Nacht")
    shared.administer("DELETE", f"/v1/tokens/{answer.json['record']['id']}")
    (record,) = shared.administer("GET", "/v1/audit?last=true&limit=1").json
    assert "why" not in record, "a reason is that of one request"
    assert len(record["request_id"]) == 32
    assert shared.salver("audit", "--limit", "1", "--last")[0] == record


def test_an_answer_says_its_request_also_when_it_is_a_refusal(shared) -> None:
    one, other = (shared.administer("GET", "/v1/nothing", headers={"x-request-id": "x" * 129}) for _ in range(2))
    assert one.status == 404
    assert one.headers["x-request-id"] != other.headers["x-request-id"]
    assert (
        shared.administer("GET", "/v1/status", token=None, headers={"x-request-id": "me"}).headers["x-request-id"]
        == "me"
    )
    body = {"name": "x", "role": "predictor"}
    refused = shared.administer("POST", "/v1/tokens", body, headers={"x-salver-why": "%ff"})
    assert (refused.status, refused.code) == (400, "INVALID_PARAMETER")


def test_a_record_is_proved_and_a_kept_head_is_compared_through_the_listener(shared) -> None:
    head = shared.administer("POST", "/v1/audit/heads").json
    proof = shared.administer("GET", "/v1/audit/records/1/proof").json
    assert (proof["seq"], proof["head"]) == (1, head)
    check = shared.administer("POST", "/v1/audit/verification", {"heads": [head]}).json
    assert (check["ok"], check["records"]) == (True, head["size"])
    check = shared.administer("POST", "/v1/audit/verification", {"heads": [head | {"size": head["size"] + 1}]}).json
    assert (check["ok"], check["bad_seq"]) == (False, head["size"] + 1)
    assert shared.administer("GET", "/v1/audit/records/0/proof").status == 400


def test_what_serves_now_is_in_the_history(shared) -> None:
    (served,) = shared.administer("GET", "/v1/history/double").json["served"]
    assert (served["endpoint"], served["model"], served["version"]) == ("double", "double", "1.0.0")
    assert "until_s" not in served
