from __future__ import annotations

import pytest
from tests.registry.finding import DIGEST, fill

from salver.protocol.errors import SalverError
from salver.protocol.tables import DeploymentSpec
from salver.protocol.usage import Asking
from salver.registry.catalog import Catalog
from salver.registry.descriptions import Descriptions
from salver.registry.evidence import Evaluations
from salver.registry.impact import Impacts
from salver.registry.lineage import Graph, Lineage
from salver.registry.usage import Usage
from salver.storage.registry_schema import lineage as rows

DATA = f"data:{DIGEST}"


@pytest.fixture
def lineage(catalog, database, journal, clock, admin, draft) -> Lineage:
    fill(catalog, database, journal, clock, admin, draft)
    return Lineage(database)


@pytest.fixture
def impacts(lineage, database) -> Impacts:
    return Impacts(database)


@pytest.fixture
def descriptions(database, journal, clock) -> Descriptions:
    return Descriptions(database, journal, clock)


def edges(graph: Graph) -> set[tuple[str, str, str]]:
    return {(edge.source, edge.relation, edge.target) for edge in graph.edges}


def reached(impacts: Impacts, subject: str) -> list[tuple[str, str, int]]:
    return [(each.reference, each.relation, each.steps) for each in impacts.of(subject).versions]


def test_a_version_is_shown_with_what_it_was_made_of_and_what_came_of_it(lineage, deployments, database, admin) -> None:
    deployments.deploy(admin, DeploymentSpec("pay", "fraud", "1.0.1"))
    Usage(database).add(
        [Asking("fraud", "1.0.1", "pay", "shop", 40, 2e9), Asking("fraud", "1.0.1", "pay", "till", 2, 1e9)]
    )
    graph = lineage.of("fraud", "champion")
    assert graph.root == "version:fraud@1.0.1"
    assert edges(graph) == {
        (DATA, "trained-on", graph.root),
        ("run:7", "made-by", graph.root),
        (graph.root, "based-on", "version:credit@1.0.0"),
        ("version:credit@1.0.0", "based-on", "version:credit@1.0.1"),
        (graph.root, "deployed-as", "endpoint:pay"),
        ("endpoint:pay", "answered", "predictions:pay/fraud@1.0.1"),
    }
    nodes = {node.id: node for node in graph.nodes}
    assert nodes[DATA].details == {"name": "payments", "uri": "s3://data/payments"}
    assert nodes["predictions:pay/fraud@1.0.1"].details == {"requests": 42, "clients": 2, "last_s": 2e9}
    assert nodes[graph.root].details["stage"] == "production"


def test_what_something_was_made_of_was_made_of_something_itself(lineage) -> None:
    assert {
        ("run:7", "made-by", "version:fraud@1.0.1"),
        ("version:fraud@1.0.1", "based-on", "version:credit@1.0.0"),
        ("version:credit@1.0.0", "based-on", "version:credit@1.0.1"),
    } <= edges(lineage.of("credit", "1.0.1"))


def test_past_deployments_are_shown_and_a_change_of_settings_is_none_of_its_own(lineage, deployments, admin) -> None:
    deployments.deploy(admin, DeploymentSpec("pay", "fraud", "1.0.1"))
    deployments.deploy(admin, DeploymentSpec("pay", "fraud", "1.0.1", max_batch=4))
    deployments.deploy(admin, DeploymentSpec("pay", "fraud", "1.0.0"))
    (edge,) = [edge for edge in lineage.of("fraud", "1.0.1").edges if edge.relation == "deployed-as"]
    assert edge.until_s > edge.since_s
    (now,) = [edge for edge in lineage.of("fraud", "1.0.0").edges if edge.relation == "deployed-as"]
    assert (now.since_s, now.until_s) == (edge.until_s, None)


def test_circles_and_strangers_are_handled(lineage, descriptions, admin) -> None:
    # text@1.0.1 is based on text@1.0.0, which now is based on it, and fraud on something that is not there.
    descriptions.describe(admin, "text", "1.0.0", {"base_model": "text@1.0.1"})
    descriptions.describe(admin, "fraud", "1.0.0", {"base_model": "gone@9.9.9"})
    graph = lineage.of("text", "1.0.0")
    assert ("version:text@1.0.1", "based-on", "version:text@1.0.0") in edges(graph)
    assert ("version:text@1.0.0", "based-on", "version:text@1.0.1") in edges(graph)
    unknown = {node.id for node in lineage.of("fraud", "1.0.0").nodes if not node.known}
    assert unknown == {"version:gone@9.9.9"}
    descriptions.describe(admin, "weather", "1.0.0", {"base_model": "weather@1.0.0"})
    assert len(lineage.of("weather").nodes) == 2


def test_a_graph_is_finite_and_says_when_it_is_cut(lineage) -> None:
    graph = lineage.of("fraud", "1.0.1", most=3)
    assert (len(graph.nodes), graph.cut) == (3, True)
    known = {node.id for node in graph.nodes}
    assert all({edge.source, edge.target} <= known for edge in graph.edges)


def test_rows_follow_the_description_in_its_transaction(lineage, descriptions, database, admin, monkeypatch) -> None:
    def nodes() -> set[str]:
        with database.read() as connection:
            found = connection.execute(rows.select().where(rows.c.model == "fraud", rows.c.version == "1.0.1"))
            return {row.node for row in found}

    assert nodes() == {DATA, "data:payments", "data:s3://data/payments", "run:7"}
    descriptions.describe(admin, "fraud", "1.0.1", {"run_id": "8", "training_data": None, "image_digest": "sha256:cd"})
    assert nodes() == {"run:8", "image:sha256:cd"}
    monkeypatch.setattr(Descriptions, "_record", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        descriptions.describe(admin, "fraud", "1.0.1", {"run_id": "9"})
    assert nodes() == {"run:8", "image:sha256:cd"}


def test_odd_names_are_kept_as_they_can_be(lineage, descriptions, impacts, admin) -> None:
    descriptions.describe(admin, "weather", "1.0.0", {"run_id": "a\0b:c\n" + "x" * 5000, "code_commit": "%_'\";--"})
    assert reached(impacts, "commit:%_'\";--") == [("weather@1.0.0", "from", 1)]


# Impact.


def test_wrong_data_reach_versions_what_is_based_on_them_endpoints_and_clients(
    impacts, deployments, database, admin
) -> None:
    deployments.deploy(admin, DeploymentSpec("pay", "fraud", "1.0.1"))
    deployments.deploy(admin, DeploymentSpec("pay", "fraud", "1.0.0"))
    deployments.deploy(admin, DeploymentSpec("loans", "credit", "1.0.1"))
    Usage(database).add(
        [
            Asking("fraud", "1.0.1", "pay", "shop", 40, 1.7e9),
            Asking("fraud", "1.0.0", "pay", "shop", 5, 1.7e9),
            Asking("credit", "1.0.1", "loans", "bank", 2, 1.7e9),
        ]
    )
    found = impacts.of("data:ab" + "ab" * 3)
    assert found.nodes == (DATA,)
    assert [(each.reference, each.relation, each.steps, each.requests) for each in found.versions] == [
        ("fraud@1.0.1", "trained-on", 1, 40),
        ("weather@1.0.0", "evaluated-on", 1, 0),
        ("credit@1.0.0", "based-on", 2, 0),
        ("credit@1.0.1", "based-on", 3, 2),
    ]
    assert [(each.endpoint, each.reference, each.until_s is None) for each in found.endpoints] == [
        ("loans", "credit@1.0.1", True),
        ("pay", "fraud@1.0.1", False),
    ]
    assert {(each.client, each.requests) for each in found.clients} == {("shop", 40), ("bank", 2)}
    assert found.requests == 42


def test_what_is_based_on_a_version_that_was_only_judged_by_bad_data_is_not_concerned(
    impacts, descriptions, database, journal, clock, admin
) -> None:
    descriptions.describe(admin, "text", "1.0.0", {"base_model": "weather@1.0.0"})
    assert "text@1.0.0" not in {each for each, *_ in reached(impacts, DATA)}
    Evaluations(database, journal, clock).record(
        admin, "text", "1.0.1", {"suite": "s", "verdict": "successful", "data_digest": DIGEST}
    )
    assert ("text@1.0.1", "judged-on", 1) in reached(impacts, DATA)
    descriptions.describe(admin, "text", "1.0.1", {"owner": "me"})
    assert ("text@1.0.1", "judged-on", 1) in reached(impacts, DATA)


def test_a_version_that_was_judged_on_its_training_data_is_told_as_trained_on_them(
    impacts, database, journal, clock, admin
) -> None:
    before = reached(impacts, DATA)
    Evaluations(database, journal, clock).record(
        admin, "fraud", "1.0.1", {"suite": "s", "verdict": "successful", "data_digest": DIGEST}
    )
    assert ("fraud@1.0.1", "trained-on", 1) in before
    assert reached(impacts, DATA) == before


CALLED = (
    ("data:payments", {"fraud@1.0.1", "credit@1.0.0", "credit@1.0.1"}),
    ("data:s3://data/payments", {"fraud@1.0.1", "credit@1.0.0", "credit@1.0.1"}),
    (f"data:sha256:{DIGEST.upper()}", {"fraud@1.0.1", "credit@1.0.0", "credit@1.0.1", "weather@1.0.0"}),
    ("run:7", {"fraud@1.0.1", "credit@1.0.0", "credit@1.0.1"}),
    ("commit:0123456", {"text@1.0.0", "text@1.0.1"}),
    ("commit:0123456789", {"text@1.0.0", "text@1.0.1"}),
    ("commit:0123456f", {"text@1.0.1"}),
    ("base:bert-large", {"text@1.0.0", "text@1.0.1"}),
    ("base:fraud", {"fraud@1.0.1", "credit@1.0.0", "credit@1.0.1"}),
    ("base:fraud@1.0.1", {"fraud@1.0.1", "credit@1.0.0", "credit@1.0.1"}),
    ("version:fraud@champion", {"fraud@1.0.1", "credit@1.0.0", "credit@1.0.1"}),
    ("credit@1.0.0", {"credit@1.0.0", "credit@1.0.1"}),
)


def test_a_subject_is_called_in_many_ways(impacts) -> None:
    for subject, wanted in CALLED:
        assert {each for each, *_ in reached(impacts, subject)} == wanted, subject


UNKNOWN = (
    ("data:nothing", "NOT_FOUND"),
    ("run:", "NOT_FOUND"),
    ("nobody@1.0.0", "NOT_FOUND"),
    ("fraud@9.9.9", "NOT_FOUND"),
    ("thing:7", "INVALID_PARAMETER"),
    (":", "INVALID_PARAMETER"),
)


def test_what_nobody_names_is_told(impacts) -> None:
    for subject, code in UNKNOWN:
        with pytest.raises(SalverError) as caught:
            impacts.of(subject)
        assert caught.value.code == code, subject


def test_a_circle_has_an_end(impacts, descriptions, admin) -> None:
    descriptions.describe(admin, "fraud", "1.0.1", {"base_model": "credit@1.0.1"})
    assert len(reached(impacts, "fraud@1.0.1")) == 3


def test_a_long_line_of_descent_is_followed(impacts, catalog: Catalog, admin, draft) -> None:
    from salver.protocol.description import Description

    before = "fraud@1.0.1"
    for number in range(30):
        base = Description(base_model=before)
        made = catalog.add_version(admin, draft(f"{number % 10}", model=f"child-{number}", description=base))
        before = made.manifest.reference
    assert (before, "based-on", 31) in reached(impacts, "run:7")
