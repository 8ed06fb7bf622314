"""What the documents list is what there is: commands, settings, fields, metrics, events, errors, routes."""

import ast
import enum
import json
import re

import msgspec
import pytest
import typer
from pages import ROOT, page, rows, section

from salver.cli.app import app
from salver.config import ServerSettings
from salver.control.routes import ROUTES
from salver.gateway.choosing import EndpointChoice
from salver.gateway.descriptions import Descriptions
from salver.gateway.files import FilesDoor, files_routes
from salver.gateway.generate import GenerateDoor, generate_routes
from salver.gateway.grpc.methods import all_methods
from salver.gateway.infer import InferDoor
from salver.gateway.jobs.door import JobDoor, job_routes
from salver.gateway.limits import Limits
from salver.gateway.mlflow import MlflowDoor, mlflow_routes
from salver.gateway.oip import OipPages, oip_routes
from salver.gateway.openai import EmbeddingsDoor, openai_routes
from salver.gateway.pages import page_routes
from salver.gateway.platforms import platform_routes
from salver.gateway.repository import repository_routes
from salver.gateway.tfs import TfsDoor
from salver.gateway.v1_models import V1Pages, v1_routes
from salver.gateway.websocket.door import WebSocketDoor, websocket_routes
from salver.protocol.datatypes import DATATYPES
from salver.protocol.errors import CATALOGUE
from salver.protocol.formats import FORMATS
from salver.protocol.jobs import JobLimits
from salver.protocol.journal_actions import JOURNAL_ACTIONS
from salver.protocol.tables import DeploymentSpec, RuntimeOptions
from salver.routing.router import Router
from salver.runtime.declaration import Declaration
from salver.runtime.model import Model
from salver.security.access import PERMISSIONS, Operation, Role
from salver.telemetry.exposition import render_metrics
from salver.telemetry.metrics import Metrics


@pytest.fixture(scope="module")
def operations():
    return page("operations.md")


@pytest.fixture(scope="module")
def protocols():
    return page("protocols.md")


MANAGEMENT = "Management is on the control listener"
"""Behind this sentence of docs/platforms.md stand routes of the control listener."""


def named(cell):
    return re.findall(r"`([^`]+)`", cell)


def commands(group, prefix="salver"):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            if command.invoke_without_command:
                yield f"{prefix} {name}", command
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def test_every_command_and_option_is_documented():
    table = {cell: row for row in rows(page("commands.md")) for cell in named(row[0])}
    deployments = section(page("deployments.md"), "## Settings")
    missing = []
    for name, command in commands(typer.main.get_command(app)):
        found = [row for shown, row in table.items() if re.match(rf"{name}(?= [A-Z\[]|$)", shown)]
        if not found:
            missing.append(name)
            continue
        text = " ".join(found[0]) + (deployments if name == "salver deploy" else "")
        options = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
        wanted = {option for option in options if option.startswith("--")} - {"--help", "--json", "--home"}
        missing += [f"{name} {option}" for option in wanted if not re.search(rf"`{option}[` ]", text)]
    assert missing == []


def test_every_documented_command_exists():
    known = {name for name, _ in commands(typer.main.get_command(app))}
    shown = [cell for row in rows(page("commands.md")) for cell in named(row[0])]
    spoken = {re.sub(r" [A-Z\[].*", "", cell) for cell in shown if cell.startswith("salver ")}
    assert spoken == known


def written(default):
    if default == "":
        return "empty"
    if isinstance(default, enum.Enum):
        return default.value
    return default if isinstance(default, str) else json.dumps(default)


@pytest.mark.parametrize(
    ("name", "heading", "settings"),
    [
        ("operations.md", "### [server]", ServerSettings),
        ("operations.md", "### Limits", Limits),
        ("jobs.md", "## Settings", JobLimits),
    ],
)
def test_every_setting_is_documented_with_its_default(name, heading, settings):
    shown = {named(row[0])[0]: row[1].strip("`") for row in rows(section(page(name), heading))}
    assert shown == {field.name: written(field.default) for field in msgspec.structs.fields(settings)}


def test_every_field_of_a_deployment_is_documented_with_its_default():
    table = rows(section(page("deployments.md"), "## Settings"))
    shown = {name: row[2].strip("`") for row in table for name in named(row[0])}
    fields = {field.name: field.default for field in msgspec.structs.fields(DeploymentSpec)}
    fields |= {f"runtime.{field.name}": field.default for field in msgspec.structs.fields(RuntimeOptions)}
    del fields["runtime"]
    assert shown.keys() == fields.keys()
    told = {"endpoint", "model", "version", "generation", "runtime.providers", "runtime.pin"}
    assert {name: shown[name] for name in fields.keys() - told} == {
        name: written(fields[name]) for name in fields.keys() - told
    }


def test_every_metric_is_documented(operations):
    exposed = render_metrics(Metrics(), list).decode()
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", exposed, re.MULTILINE))
    assert {named(row[0])[0]: row[1] for row in rows(section(operations, "## Metrics"))} == kinds


def test_every_event_of_the_log_is_documented(operations):
    events = set()
    for file in (ROOT / "src" / "salver").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "log_event":
                events.add(node.args[0].value)
    assert {name for row in rows(section(operations, "## Logs")) for name in named(row[0])} == events


def test_the_table_of_roles_is_the_one_that_decides(operations):
    table = rows(section(operations, "### Tokens and roles"))
    shown = {row[0]: [role for role, cell in zip(Role, row[1:], strict=True) if cell == "yes"] for row in table}
    assert shown == {
        operation.value: [role for role in Role if operation in PERMISSIONS[role]] for operation in Operation
    }


def test_every_code_one_must_act_on_is_of_the_catalogue(operations):
    shown = {code for row in rows(section(operations, "## What to do when")) for code in named(row[0])}
    assert shown <= CATALOGUE.keys()
    unavailable = {code for code, row in CATALOGUE.items() if row.http >= 500} - {"UNSUPPORTED"}
    assert unavailable <= shown


def test_the_table_of_errors_is_the_catalogue(protocols):
    between = protocols.partition("<!-- errors: begin -->")[2].partition("<!-- errors: end -->")[0]
    assert [tuple(row) for row in rows(between)] == [
        (f"`{code}`", str(row.http), row.grpc, row.meaning) for code, row in CATALOGUE.items()
    ]


def shown_routes(text):
    """(verb, path, who may) of the rows of a table of routes."""
    for cell, who, *_ in rows(text):
        for part in cell.split("; "):
            verb, _, rest = part.partition(" ")
            if verb.isupper():
                yield from ((verb, path, who) for path in named(rest))


def test_every_route_of_the_data_listener_is_documented(protocols):
    pages = OipPages(Descriptions(Router(), Metrics(), server_name="", is_ready=lambda: True, has_repository=False))
    routes = page_routes(lambda: (b"", ""), oip_routes(pages, InferDoor(Router(), 1)))
    routes += v1_routes(V1Pages(Router(), lambda _: None), TfsDoor(Router(), 1))
    embeddings = EmbeddingsDoor(Router(), 1)
    scoring = MlflowDoor(
        Router(), EndpointChoice(Router(), ""), pages._descriptions, InferDoor(Router(), 1), embeddings, 1
    )
    routes += mlflow_routes(scoring) + openai_routes(embeddings) + files_routes(FilesDoor(Router(), 1))
    routes += generate_routes(GenerateDoor(Router(), InferDoor(Router(), 1), 1))
    routes += job_routes(JobDoor(*[None] * 7))
    routes += websocket_routes(WebSocketDoor(InferDoor(Router(), 1), 1, ""))
    shown = section(protocols, "## The data listener").partition("### Inference")[0]
    shown += page("streaming.md") + page("jobs.md")
    choice, tfs = EndpointChoice(Router(), ""), TfsDoor(Router(), 1)
    routes += platform_routes(Router(), choice, scoring, tfs, None, 1)
    shown += page("more-protocols.md") + page("platforms.md").partition(MANAGEMENT)[0]
    assert sorted(shown_routes(shown)) == sorted(
        (route.method, route.template, route.operation or "open") for route in routes
    )


def test_every_method_of_the_grpc_listener_is_documented(protocols):
    descriptions = Descriptions(Router(), Metrics(), server_name="", is_ready=lambda: True, has_repository=False)
    shown = {(path, row[1]) for row in rows(section(protocols, "## gRPC")) for path in named(row[0]) if path[0] == "/"}
    methods = all_methods(Router(), descriptions, None, 1).values()
    assert shown == {(method.template, method.operation or "open") for method in methods}


async def ask_nobody(path, body, asking):
    raise NotImplementedError


def test_every_action_of_the_journal_is_documented():
    told = [
        name for _, names in rows(section(page("audit.md"), "### Actions")) for name in re.findall(r"`(\w+)`", names)
    ]
    assert sorted(told) == sorted(JOURNAL_ACTIONS)


def test_every_route_of_the_control_listener_is_documented():
    routes = {(route.method, route.template, route.operation or "open") for route in ROUTES}
    routes |= {("GET", path, "open") for path in ("/v2/health/live", "/docs", "/openapi.json")}
    shown = page("control-api.md") + page("platforms.md").partition(MANAGEMENT)[2]
    assert set(shown_routes(shown)) == routes
    assert {(route.method, route.template, route.operation) for route in repository_routes(ask_nobody)} <= routes


def test_every_datatype_is_documented(protocols):
    shown = [name for row in rows(section(protocols, "### Datatypes")) for name in named(row[0])]
    assert sorted(shown) == sorted(DATATYPES)


def test_every_key_of_a_declaration_is_documented():
    shown = {key for row in rows(section(page("models.md"), "## salver-model.toml")) for key in named(row[0])}
    assert shown == {field.name for field in msgspec.structs.fields(Declaration)}


def test_every_format_is_documented():
    shown = {name for row in rows(section(page("models.md"), "## Formats")) for name in named(row[0])}
    assert shown == set(FORMATS)


def test_every_method_of_a_model_is_documented():
    shown = {
        name.partition("(")[0] for row in rows(section(page("models.md"), "## salver.Model")) for name in named(row[0])
    }
    assert shown == {name for name, value in vars(Model).items() if callable(value) and not name.startswith("_")}
