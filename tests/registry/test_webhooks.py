"""Webhooks: created and removed by operators, on the journal, with no secret in any file."""

import pytest
from tests.homes import kept_bytes

from salver.protocol.errors import SalverError
from salver.protocol.tables import Webhook
from salver.registry import webhooks as module
from salver.registry.deployments import Deployments
from salver.registry.webhooks import WebhookRequest, Webhooks
from salver.security.access import Principal, PrincipalKind, Role

URL = "https://hooks.example.com/x"


@pytest.fixture
def hooks(database, journal, clock, home):
    return Webhooks(database, journal, clock, home.pepper())


def somebody(role):
    return Principal("somebody", role, "default", PrincipalKind.TOKEN)


def test_a_webhook_is_created_listed_published_and_removed(hooks, admin, database, journal, clock):
    minted = hooks.create(admin, WebhookRequest("orders", URL, "acme"))
    assert minted.secret.startswith("whsec_")
    assert hooks.list() == (minted.record,)
    tables = Deployments(database, journal, clock).tables()
    assert tables.webhooks == (Webhook("orders", "acme"),)
    assert hooks.remove(admin, "orders") == minted.record
    assert hooks.list() == ()
    assert Deployments(database, journal, clock).tables().revision > tables.revision
    assert [(row.action, row.subject) for row in journal.records()] == [
        ("create_webhook", "orders"),
        ("remove_webhook", "orders"),
    ]


def test_one_made_again_has_another_secret(hooks, admin):
    first = hooks.create(admin, WebhookRequest("orders", URL))
    hooks.remove(admin, "orders")
    assert hooks.create(admin, WebhookRequest("orders", URL)).secret != first.secret


def test_nothing_that_the_home_keeps_holds_the_secret(hooks, admin, home, database):
    secret = hooks.create(admin, WebhookRequest("orders", URL)).secret.removeprefix("whsec_")
    kept = kept_bytes(home, database)
    assert any(URL.encode() in data for data in kept)
    assert not any(secret.encode() in data for data in kept)


@pytest.mark.parametrize("role", [Role.APPROVER, Role.DEVELOPER, Role.PREDICTOR])
def test_only_operators_change_webhooks(hooks, role):
    for act in (
        lambda: hooks.create(somebody(role), WebhookRequest("orders", URL)),
        lambda: hooks.remove(somebody(role), "orders"),
    ):
        with pytest.raises(SalverError) as raised:
            act()
        assert raised.value.code == "PERMISSION_DENIED"


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (WebhookRequest("../x", URL), "INVALID_NAME"),
        (WebhookRequest("x", URL, "../x"), "INVALID_NAME"),
        (WebhookRequest("x", "ftp://a.example/"), "INVALID_SETTING"),
        (WebhookRequest("x", "http://a.example/"), "INVALID_SETTING"),
        (WebhookRequest("x", "https://127.0.0.1/"), "REFUSED_BY_POLICY"),
        (WebhookRequest("x", "https://[::ffff:10.0.0.1]/"), "REFUSED_BY_POLICY"),
        (WebhookRequest("taken", URL), "ALREADY_EXISTS"),
    ],
)
def test_an_odd_webhook_is_refused(hooks, admin, request_, code):
    hooks.create(admin, WebhookRequest("taken", URL))
    with pytest.raises(SalverError) as raised:
        hooks.create(admin, request_)
    assert raised.value.code == code
    assert len(hooks.list()) == 1


def test_a_private_address_is_taken_where_the_operator_says_so(hooks, admin):
    assert hooks.create(admin, WebhookRequest("x", "http://127.0.0.1:9/", allow_private=True)).record.allow_private


def test_webhooks_are_bounded(hooks, admin, monkeypatch):
    monkeypatch.setattr(module, "_MOST", 2)
    for name in ("a", "b"):
        hooks.create(admin, WebhookRequest(name, URL))
    with pytest.raises(SalverError) as raised:
        hooks.create(admin, WebhookRequest("c", URL))
    assert raised.value.code == "QUEUE_FULL"


def test_an_unknown_webhook_is_not_found(hooks, admin):
    with pytest.raises(SalverError) as raised:
        hooks.remove(admin, "nowhere")
    assert raised.value.code == "NOT_FOUND"
