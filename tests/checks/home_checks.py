"""What must hold of a home whatever happened to it: checked by its own commands and from outside."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

from salver.cli import main
from salver.clock import SYSTEM_CLOCK
from salver.registry.records import Records
from salver.storage.database import open_database
from salver.storage.home import Home
from salver.storage.opening import open_blobs
from salver.storage.publication import read_tables

__all__ = ["kept", "run", "sound"]


def run(home: Path, *words: object) -> Any:
    """A command that must succeed, and its JSON document."""
    with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.redirect_stderr(io.StringIO()) as complaint:
        code = main(["--json", "--home", str(home), *map(str, words)])
    assert code == 0, (words, output.getvalue(), complaint.getvalue())
    return json.loads(output.getvalue()) if output.getvalue() else None


def kept(place: Path) -> dict[str, Any]:
    """What a home says that it has, without times; nothing is brought into order by looking."""
    home = Home.open(place)
    database = open_database(home)
    try:
        records = Records(home, database, SYSTEM_CLOCK)
        versions = [each for model in records.catalog.models() for each in records.catalog.versions(model.name)]
        return {
            "versions": {each.reference: each.digest for each in versions},
            "stages": {each.reference: each.stage.value for each in records.lifecycle.stages()},
            "aliases": {
                (each.model, each.alias): each.version
                for model in records.catalog.models()
                for each in records.pages.aliases(model.name)
            },
            "deployed": {each.endpoint: (each.model, each.version) for each in records.deployments.list()},
            "tokens": sorted(each.name for each in records.tokens.list()),
            "journal": [
                (each.actor, each.action, "" if each.action == "create_token" else each.subject)
                for each in records.journal.records(1000)
            ],
        }
    finally:
        database.close()


def sound(place: Path) -> None:
    """Bring the home into order by one command, and check all of it: then nothing is left of what went wrong."""
    run(place, "models")
    run(place, "storage", "collect")  # where half a blob goes, if no registration comes before
    run(place, "audit", "head")
    told = run(place, "audit", "verify")
    assert told["ok"], told
    home = Home.open(place)
    database = open_database(home)
    try:
        records = Records(home, database, SYSTEM_CLOCK)
        assert read_tables(home) == records.deployments.tables()
        blobs = open_blobs(home)
        for model in records.catalog.models():
            for manifest in records.catalog.versions(model.name):
                for file in manifest.files:
                    blobs.verify(file.sha256)
    finally:
        database.close()
    left = [path for path in place.rglob("*.tmp") if path.is_file()]
    assert left == [], "temporary files stay"
    assert not [path for path in place.glob("blobs/incoming/*") if path.is_file()], "half a blob stays"
