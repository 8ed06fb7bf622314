"""The steps of a delivery: register, evaluate, promote, deploy. Each may be repeated, and does then only what is left.

    python deliver.py register  MODEL PATH            registers a version and prints REFERENCE=MODEL@VERSION
    python deliver.py evaluate  REFERENCE PATH ...    judges it here, and records the verdict as evidence
    python deliver.py promote   REFERENCE STAGE       brings it there, if the gates on the way are open
    python deliver.py deploy    REFERENCE             has the endpoint of the model's name serve it

The registry is the server at SALVER_URL with the token in SALVER_TOKEN; without a URL it is the home of this machine.
WHY is the reason that the audit journal gets. A step that may not go on ends with exit code 1.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import salver
from salver.protocol.errors import SalverError

ORDER = ("development", "validation", "staging", "production")
WHY = os.environ.get("WHY", "")


def main() -> int:
    given = arguments()
    with salver.Registry(os.environ.get("SALVER_URL") or None) as registry:
        try:
            return given.run(registry, given)
        except SalverError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The steps of a delivery.")
    steps = parser.add_subparsers(required=True)
    step = steps.add_parser("register", help="register a version and print its reference")
    step.add_argument("model")
    step.add_argument("path", type=Path)
    step.add_argument("--description", type=Path, help="a JSON file with fields of the description")
    step.set_defaults(run=register)
    step = steps.add_parser("evaluate", help="judge a version and record the verdict")
    step.add_argument("reference")
    step.add_argument("path", type=Path, help="the artifact that was registered")
    step.add_argument("--suite", type=Path, required=True)
    step.add_argument("--data", type=Path, required=True)
    step.add_argument("--report", type=Path, help="where to leave the report")
    step.set_defaults(run=evaluate)
    step = steps.add_parser("promote", help="bring a version to a stage")
    step.add_argument("reference")
    step.add_argument("stage", choices=ORDER)
    step.set_defaults(run=promote)
    step = steps.add_parser("deploy", help="have an endpoint serve a version")
    step.add_argument("reference")
    step.set_defaults(run=deploy)
    return parser.parse_args()


def register(registry: salver.Registry, given: argparse.Namespace) -> int:
    """The same artifact again is the same version."""
    said = json.loads(given.description.read_text()) if given.description else None
    version = registry.publish_model(given.model, given.path, description=said, why=WHY)
    print(f"{version.reference} {'registered' if version.created else 'was registered already'}", file=sys.stderr)
    print(f"REFERENCE={version.reference}")
    return 0


def evaluate(registry: salver.Registry, given: argparse.Namespace) -> int:
    """Judged in a home that is thrown away, beside what is in production now; the bytes are those of the registry."""
    name, _, number = given.reference.partition("@")
    wanted = registry.get_model(name, number)
    with tempfile.TemporaryDirectory() as folder:
        with salver.Registry(home=Path(folder) / "home") as scratch:
            rival = in_production(registry, name)
            if rival is not None and rival.version != wanted.version:
                copied = rival.download(Path(folder) / "rival")
                scratch.publish_model(name, copied, version=rival.version, format=rival.manifest.format)
                for stage in ORDER[1:]:
                    scratch.update_model_stage(name, rival.version, stage)
            judged = scratch.publish_model(name, given.path, version=wanted.version, format=wanted.manifest.format)
        if judged.digest != wanted.digest:
            print(f"error: {given.path} is not what is registered as {wanted.reference}", file=sys.stderr)
            return 1
        command = [sys.executable, "-m", "salver", "--json", "--home", f"{folder}/home", "evaluate", given.reference]
        command += ["--suite", str(given.suite), "--data", str(given.data)]
        command += ["--report", str(given.report)] if given.report else []
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.stdout:
        document = json.loads(done.stdout)
        registry.record_evaluation(name, wanted.version, document, why=WHY)
        print(f"{wanted.reference}: suite {document['suite']} is {document['verdict']}")
    return done.returncode


def in_production(registry: salver.Registry, name: str) -> object:
    try:
        return registry.get_model(name, "production")
    except SalverError as error:
        if error.code != "NOT_FOUND":
            raise
        return None


def promote(registry: salver.Registry, given: argparse.Namespace) -> int:
    """Stage by stage; one that stands there already, or further on, stays where it is."""
    name, _, number = given.reference.partition("@")
    stage = registry.get_model(name, number).stage
    if stage not in ORDER:
        print(f"error: {given.reference} is in {stage}", file=sys.stderr)
        return 1
    for target in ORDER[ORDER.index(stage) + 1 : ORDER.index(given.stage) + 1]:
        registry.update_model_stage(name, number, target, if_stage=stage, why=WHY)
        stage = target
    print(f"{given.reference} is in {stage}")
    return 0


def deploy(registry: salver.Registry, given: argparse.Namespace) -> int:
    """What is deployed already is left alone."""
    name, _, number = given.reference.partition("@")
    version = registry.get_model(name, number).version
    if (name, version) not in [(spec.endpoint, spec.version) for spec in registry.deployments()]:
        registry.deploy(name, version, why=WHY)
    print(f"{name} serves {name}@{version}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
