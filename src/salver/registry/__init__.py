"""Every version and why: the catalog, what should be deployed, who may ask.

Each change takes the principal that asks, checks the operation, and is one transaction with its
record in the journal: what these methods return is on disk, and what they refuse never was.
"""

from salver.registry.access_tokens import AccessTokens, ensure_admin_token
from salver.registry.catalog import Catalog, ModelSummary
from salver.registry.deployments import Deployments
from salver.registry.draft import VersionDraft
from salver.registry.files import artifact_digest, check_files
from salver.registry.isolations import IsolatedVersion, Isolations

__all__ = [
    "AccessTokens",
    "Catalog",
    "Deployments",
    "IsolatedVersion",
    "Isolations",
    "ModelSummary",
    "VersionDraft",
    "artifact_digest",
    "check_files",
    "ensure_admin_token",
]
