"""A small registry to look for things in: four models, eight versions, and something said of most of them."""

from __future__ import annotations

from typing import Any, Final

from salver.protocol.description import DataReference, Description
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.stages import Stage
from salver.registry.descriptions import Descriptions
from salver.registry.stages import VersionStage, write_stage
from salver.storage.database import Database

__all__ = ["DIGEST", "SAID", "fill"]

DIGEST: Final = "ab" * 32
PAIR: Final = Signature(
    (TensorSpec("income", "FP32", (-1,)), TensorSpec("town", "BYTES", (-1,))),
    (TensorSpec("risk", "FP32", (-1, 2), labels=("good", "bad")),),
)
SAID: Final[tuple[dict[str, Any], ...]] = (
    {
        "model": "fraud",
        "description": Description(
            description="Finds fraudulent payments", task="classification", licence="GPL-3.0", metrics={"auc": 0.9}
        ),
        "tags": {"team": "risk", "tier": "1"},
    },
    {
        "model": "fraud",
        "description": Description(
            description="Finds fraudulent payments, faster",
            task="classification",
            licence="Apache-2.0",
            metrics={"auc": 0.95, "top 5": 0.5},
            hyperparameters={"depth": 3, "shuffle": True, "loss": "hinge"},
            training_data=DataReference("payments", "s3://data/payments", f"sha256:{DIGEST}", rows=1000),
            run_id="7",
        ),
        "tags": {"team": "risk", "tier": "2"},
    },
    {"model": "fraud", "description": None},
    {
        "model": "credit",
        "signature": PAIR,
        "description": Description(
            description="Says who pays back", owner="ann", base_model="fraud@1.0.1", metrics={"auc": 0.7}
        ),
        "tags": {"team": "loans", "live": "true"},
    },
    {"model": "credit", "signature": PAIR, "description": Description(owner="bob", base_model="credit@1.0.0")},
    {
        "model": "weather",
        "kind": "embed",
        "description": Description(description="Rain and sun", evaluation_data=DataReference(digest=DIGEST)),
    },
    {"model": "text", "description": Description(base_model="bert-large", code_commit="0123456789abcdef")},
    {"model": "text", "description": Description(base_model="text@1.0.0", code_commit="0123456ffff")},
)


def fill(catalog, database: Database, journal, clock, admin, draft) -> None:
    """Register them all, one in production and one archived, one with an alias."""
    for index, given in enumerate(SAID):
        catalog.add_version(admin, draft("0123456789abcdef"[index], **given))
    Descriptions(database, journal, clock).alias(admin, "fraud", "champion", "1.0.1")
    with database.begin() as connection:
        write_stage(connection, VersionStage("fraud", "1.0.1", Stage.PRODUCTION, 5.0, emergency=True))
        write_stage(connection, VersionStage("credit", "1.0.0", Stage.ARCHIVED, 6.0))
