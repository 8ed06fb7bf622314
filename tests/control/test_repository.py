from __future__ import annotations

import pytest


@pytest.fixture(params=["control", "http"])
def listener(request, shared) -> str:
    """Both listeners that offer the repository: the server was started with it on the data listener too."""
    return request.param


@pytest.fixture(scope="module")
def repository(shared, models):
    """A function that asks a listener as an operator, for a repository with `other` registered."""
    shared.salver("register", "other", models / "times3.onnx")
    operator = shared.token("repository", "operator")
    predictor = shared.token("repository-predictor", "predictor")
    shared.until(lambda: shared.get("/v2", token=operator).status == 200, "the tokens are published")

    def ask(listener: str, path: str, body: object = b"", token: str | None = operator):
        place = {"http": shared.http, "control": shared.control}[listener]
        return shared.ask(place, "POST", f"/v2/repository/{path}", body, token=token)

    ask.predictor = predictor
    return ask


def test_the_index_lists_registered_versions_and_their_state(repository, listener) -> None:
    rows = repository(listener, "index").json
    assert rows == [
        {"name": "double", "version": "1.0.0", "state": "READY", "reason": ""},
        {"name": "other", "version": "1.0.0", "state": "UNAVAILABLE", "reason": "unloaded"},
    ]
    assert [row["name"] for row in repository(listener, "index", {"ready": True}).json] == ["double"]
    assert repository(listener, "index", {"ready": False}).json == rows


def test_load_answers_when_the_model_serves_and_unload_removes_it(repository, shared, listener) -> None:
    assert repository(listener, "models/other/load").json == {"name": "other", "load": True}
    assert shared.predict("other", [1, 2]) == [3, 6]
    body = {"parameters": {"unload_dependents": False}}
    assert repository(listener, "models/other/unload", body).json == {"name": "other", "unload": True}
    shared.until(lambda: shared.infer("other", [1, 2]).status == 404, "it is gone", 2)
    assert repository(listener, "models/other/unload").status == 404


def test_loading_what_is_not_registered_fails_in_the_words_clients_look_for(repository, listener) -> None:
    answer = repository(listener, "models/nothing/load")
    assert answer.status == 404
    assert "failed to load 'nothing'" in answer.json["error"]


@pytest.mark.parametrize("parameters", [{"config": "{}"}, {"file:1/model.onnx": "AAAA"}, ["config"], "config"])
def test_a_client_brings_no_configuration_and_no_files(repository, shared, listener, parameters) -> None:
    answer = repository(listener, "models/other/load", {"parameters": parameters})
    assert answer.status == 400
    assert "registry" in answer.json["error"]
    assert shared.infer("other", [1, 2]).status == 404


def test_strangers_and_predictors_load_nothing(repository, listener) -> None:
    for path in ("index", "models/other/load", "models/double/unload"):
        assert repository(listener, path, token=None).status == 401
        assert repository(listener, path, token=repository.predictor).status == 403


def test_the_extension_is_advertised_where_it_works(shared, trees) -> None:
    assert "model_repository" in shared.get("/v2").json["extensions"]
    without = trees()
    without.start()
    assert "model_repository" not in without.get("/v2").json["extensions"]
    assert shared.ask(without.http, "POST", "/v2/repository/index", b"", token=without.admin_token).status == 404
    assert without.stop() == 0
