from __future__ import annotations

from typing import Any

import pytest
from tests.conftest import serving_double

from salver.control.actions.models import MODELS
from salver.control.actions.status import STATUS, ServerStatus
from salver.control.repository import repository_index
from salver.protocol.tables import DeploymentSpec
from salver.registry.catalog import ModelSummary
from salver.runtime.status import EndpointStatus, LoadState


@pytest.fixture(scope="module")
def unmoved(trees, models):
    """A server whose repository is where it always is."""
    with serving_double(trees(), models) as tree:
        yield tree


@pytest.fixture(scope="module")
def moved(trees, models):
    """A server whose repository has moved to the data listener."""
    with serving_double(trees(), models, SALVER_SERVER_REPOSITORY_ON_DATA="1") as tree:
        yield tree


@pytest.fixture(scope="module", params=["unmoved", "moved"])
def house(request):
    """A server that offers the repository on one of its listeners."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def repository(house, unmoved, models):
    """A function that asks as an operator, where the repository is."""
    house.salver("register", "other", models / "times3.onnx")
    operator = house.token("repository", "operator")
    predictor = house.token("repository-predictor", "predictor")
    developer = house.token("repository-developer", "developer")
    house.until(lambda: house.get("/v2", token=developer).status == 200, "the tokens are published")
    place = house.control if house is unmoved else house.http

    def ask(path: str, body: object = b"", token: str | None = operator):
        return house.ask(place, "POST", f"/v2/repository/{path}", body, token=token)

    ask.predictor, ask.developer = predictor, developer
    return ask


def test_the_index_lists_endpoints_and_the_registered_models_that_none_serves(repository) -> None:
    rows = repository("index").json
    assert rows == [
        {"name": "double", "version": "1.0.0", "state": "READY", "reason": ""},
        {
            "name": "other",
            "version": "1.0.0",
            "state": "UNAVAILABLE",
            "reason": "registered, not deployed; load deploys it",
        },
    ]
    assert [row["name"] for row in repository("index", {"ready": True}).json] == ["double"]
    assert repository("index", {"ready": False}).json == rows
    answer = repository("index", {"ready": "yes"})
    assert (answer.status, answer.code) == (400, "INVALID_PARAMETER")


def test_load_answers_when_the_model_serves_and_unload_removes_it(repository, house) -> None:
    assert repository("models/other/load").json == {"name": "other", "load": True}
    assert house.predict("other", [1, 2]) == [3, 6]
    body = {"parameters": {"unload_dependents": False}}
    assert repository("models/other/unload", body).json == {"name": "other", "unload": True}
    house.until(lambda: house.infer("other", [1, 2]).status == 404, "it is gone")
    assert repository("models/other/unload").status == 404


def test_an_endpoint_named_otherwise_than_its_model_is_known_by_its_own_name(tree, models) -> None:
    for path, version in (("times2", "1.0.0"), ("times3", "2.0.0")):
        tree.salver("register", "thrice", models / f"{path}.onnx", "--version", version)
    tree.salver("register", "bad", models / "times2.onnx")
    tree.salver("deploy", "thrice@1.0.0", "--endpoint", "numbers", "--max-batch", "7")
    tree.start(SALVER_SERVER_REPOSITORY_ON_DATA="true")

    def repository(path: str, body: object = b"") -> object:
        return tree.ask(tree.http, "POST", f"/v2/repository/{path}", body, token=tree.admin_token).json

    undeployed = {"version": "1.0.0", "state": "UNAVAILABLE", "reason": "registered, not deployed; load deploys it"}
    assert repository("index") == [
        {"name": "bad"} | undeployed,
        {"name": "numbers", "version": "1.0.0", "state": "READY", "reason": ""},
    ]
    # Loading an endpoint brings its model's highest release and leaves its settings.
    assert repository("models/numbers/load") == {"name": "numbers", "load": True}
    assert repository("index", {"ready": True}) == [
        {"name": "numbers", "version": "2.0.0", "state": "READY", "reason": ""}
    ]
    assert tree.predict("numbers", [1, 2]) == [3, 6]
    assert tree.get("/v2/models/numbers/config").json["max_batch_size"] == 7
    # A model's own name makes an endpoint of that name; an endpoint's goes before a model's.
    assert repository("models/thrice/load") == {"name": "thrice", "load": True}
    tree.salver("deploy", "thrice@1.0.0", "--endpoint", "bad", "--wait")
    assert repository("models/bad/load") == {"name": "bad", "load": True}
    assert tree.predict("bad", [1, 2]) == [3, 6]
    assert [row["name"] for row in repository("index", {"ready": True})] == ["bad", "numbers", "thrice"]
    for name in ("numbers", "bad"):
        assert repository(f"models/{name}/unload") == {"name": name, "unload": True}
    assert [(row["name"], row["state"]) for row in repository("index")] == [
        ("bad", "UNAVAILABLE"),
        ("thrice", "READY"),
    ]


def test_loading_what_is_not_registered_fails_in_the_words_clients_look_for(repository) -> None:
    answer = repository("models/nothing/load")
    assert answer.status == 404
    assert "failed to load 'nothing'" in answer.json["error"]


@pytest.mark.parametrize("parameters", [{"config": "{}"}, {"file:1/model.onnx": "AAAA"}, ["config"], "config"])
def test_a_client_brings_no_configuration_and_no_files(repository, house, parameters) -> None:
    answer = repository("models/other/load", {"parameters": parameters})
    assert answer.status == 400
    assert "registry" in answer.json["error"]
    assert house.infer("other", [1, 2]).status == 404


def test_strangers_and_predictors_load_nothing(repository) -> None:
    for path in ("index", "models/other/load", "models/double/unload"):
        assert repository(path, token=None).status == 401
        assert repository(path, token=repository.predictor).status == 403


def test_on_either_listener_a_developer_may_look_and_only_an_operator_may_load(repository) -> None:
    assert repository("index", token=repository.developer).status == 200
    for path in ("models/other/load", "models/double/unload"):
        answer = repository(path, token=repository.developer)
        assert (answer.status, answer.code) == (403, "PERMISSION_DENIED")


def test_the_repository_is_in_one_place_and_advertised_where_it_works(unmoved, moved) -> None:
    assert "model_repository" in moved.get("/v2").json["extensions"]
    assert "model_repository" not in unmoved.get("/v2").json["extensions"]
    for house, there, elsewhere in ((moved, moved.http, moved.control), (unmoved, unmoved.control, unmoved.http)):
        for path in ("index", "any/index"):
            asked = ("POST", f"/v2/repository/{path}", b"")
            assert house.ask(there, *asked, token=house.admin_token).status == 200
            assert house.ask(elsewhere, *asked, token=house.admin_token).status == 404


class Administration:
    """One endpoint `e` that should serve m@2.0.0, and what a server says of it."""

    def __init__(self, *endpoints: EndpointStatus) -> None:
        self.endpoints = endpoints

    def do(self, action: Any, _: Any) -> Any:
        if action is STATUS:
            return ServerStatus(bool(self.endpoints), (DeploymentSpec("e", "m", "2.0.0"),), self.endpoints)
        assert action is MODELS
        early = ModelSummary("early", 0.0, 2, "1.0.0-b", None)
        return (early, ModelSummary("m", 0.0, 2, "2.0.0", "2.0.0"))


def doing(state: LoadState, serving: str | None, *, available: bool = True, wanted: str = "m@2.0.0") -> EndpointStatus:
    problem = "it is broken" if state is LoadState.FAILED else None
    return EndpointStatus(
        endpoint="e",
        state=state,
        required=True,
        wanted=wanted,
        serving=serving,
        available=available,
        code=None,
        problem=problem,
        placement=None,
        replicas=1,
        waiting=0,
        running=0,
        workers=(),
        restarts=0,
        generation=1,
        curve={},
    )


@pytest.mark.parametrize(
    ("endpoints", "rows"),
    [
        ([doing(LoadState.READY, "m@2.0.0")], [("2.0.0", "READY", "")]),
        (
            [doing(LoadState.READY, "m@2.0.0", available=False)],
            [("2.0.0", "UNAVAILABLE", "it has no healthy replica")],
        ),
        ([doing(LoadState.LOADING, None, available=False)], [("2.0.0", "LOADING", "")]),
        ([doing(LoadState.LOADING, "m@1.0.0")], [("1.0.0", "READY", ""), ("2.0.0", "LOADING", "")]),
        (
            [doing(LoadState.FAILED, "m@1.0.0")],
            [("1.0.0", "READY", ""), ("2.0.0", "UNAVAILABLE", "it is broken")],
        ),
        # The server has not read the newest tables yet.
        (
            [doing(LoadState.FAILED, "m@1.0.0", wanted="m@1.5.0")],
            [("1.0.0", "READY", ""), ("2.0.0", "LOADING", "")],
        ),
        ([doing(LoadState.READY, "other@2.0.0")], [("2.0.0", "READY", ""), ("2.0.0", "LOADING", "")]),
        ([], [("2.0.0", "UNAVAILABLE", "deployed, but no server says what it does")]),
    ],
)
def test_a_row_says_what_serves_and_another_what_should(endpoints, rows) -> None:
    found = repository_index(Administration(*endpoints), None)
    assert [(row.version, row.state, row.reason) for row in found if row.name == "e"] == rows
    assert [(row.version, row.state) for row in found if row.name != "e"] == [("1.0.0-b", "UNAVAILABLE")]
