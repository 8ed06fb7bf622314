"""The catalog: every version of every model, written once.

A version is a row that nothing changes: the number, the ordinal, the digest and the signature
that a client was promised are the ones it gets for as long as the home exists.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, func, insert, select

from salver.clock import Clock
from salver.protocol.description import Description, merged
from salver.protocol.errors import SalverError
from salver.protocol.formats import KINDS
from salver.protocol.names import SemanticVersion, check_name
from salver.protocol.tables import VersionManifest
from salver.registry.attestation import sign_from_before, sign_version, verified_publisher
from salver.registry.description_rows import write_description, write_tags
from salver.registry.draft import VersionDraft, difference
from salver.registry.files import check_files
from salver.registry.keyring import Keyring
from salver.registry.numbering import Numbered, number
from salver.security.access import Operation, Principal, require
from salver.security.model_signing import Publisher, open_bundle
from salver.storage.database import Database, raise_revision
from salver.storage.journal import Journal
from salver.storage.schema import models, versions

__all__ = ["Added", "Catalog", "ModelSummary", "find_version"]


class ModelSummary(msgspec.Struct, frozen=True):
    """One model at a glance: its versions from the oldest to the newest registration."""

    name: str
    created_s: float
    versions: tuple[str, ...]
    latest: str | None
    """The highest release: what "no version" means; None while there are only pre-releases."""


class Added(NamedTuple):
    """What became of a registration."""

    manifest: VersionManifest
    created: bool
    """False when the very same version was there already."""
    numbered: Numbered
    """The number, and what it answers for; of a version that was there only the number."""


class Catalog:
    """The versions in one database, each signed with the home's key when it is registered."""

    __slots__ = ("_clock", "_database", "_journal", "_keyring")

    def __init__(self, database: Database, journal: Journal, clock: Clock, keyring: Keyring) -> None:
        self._database = database
        self._journal = journal
        self._clock = clock
        self._keyring = keyring

    def add_version(
        self,
        principal: Principal,
        draft: VersionDraft,
        *,
        as_it_is: bool = False,
        look: Callable[[], None] = lambda: None,
    ) -> Added:
        """Register a version; `look`, which may raise, is called in the transaction before anything is written.

        Without a number the first version is 1.0.0 and a later one the next that says enough of what it changes
        (`salver.registry.numbering`), except that repeating the newest registration returns that one. Registering
        the same thing under its number again changes nothing; something else under that number is ALREADY_EXISTS, a
        number that says too little INVALID_VERSION - unless the version is taken over from another registry
        `as_it_is`. A signature that comes with it is to be of a trusted key over these very files, else
        REFUSED_BY_POLICY; one made by Salver says the number too. Of two racing calls one follows the other. Raises
        PERMISSION_DENIED, INVALID_NAME, INVALID_VERSION or INVALID_ARTIFACT before anything is written.
        """
        require(principal, Operation.REGISTER)
        check_name(draft.model, "model")
        number_given = self._signed_number(draft) if draft.version is None else draft.version
        wanted = None if number_given is None else str(SemanticVersion.parse(number_given))
        check_files(draft.files)
        _check_kind(draft.kind)
        unnumbered = draft.manifest("0.0.0", 1)
        if unnumbered.runs_user_code:
            require(principal, Operation.TRUST_CODE)
        with self._database.begin() as connection:
            known = _manifests(connection, draft.model)
            existing = _repeated(known, draft, wanted)
            if existing is not None:
                self._publisher(draft, existing)
                return Added(existing, False, Numbered(existing.version))
            numbered = Numbered(wanted) if as_it_is and wanted else number(known, unnumbered, wanted)
            manifest = draft.manifest(numbered.version, len(known) + 1)
            look()
            self._insert(connection, principal, draft, manifest, numbered)
        return Added(manifest, True, numbered)

    def _signed_number(self, draft: VersionDraft) -> str | None:
        """The number for which Salver signed the files elsewhere, where they came with such a signature."""
        if not draft.publisher_signature:
            return None
        claim = open_bundle(draft.publisher_signature, self._keyring.trusted()).claim
        return claim.manifest.version if claim else None

    def _publisher(self, draft: VersionDraft, manifest: VersionManifest) -> Publisher | None:
        if not draft.publisher_signature:
            return None
        return verified_publisher(draft.publisher_signature, manifest, self._keyring.trusted())

    def sign_from_before(self, principal: Principal) -> tuple[str, ...]:
        """Sign what a Salver that did not sign has registered, once in a home's life; returns the references."""
        with self._database.begin() as connection:
            signed = sign_from_before(connection, self._keyring.signing, self._clock.wall_s())
            if signed:
                raise_revision(connection)
                details = {"versions": len(signed), "key_id": self._keyring.signing().key_id}
                self._journal.append(
                    connection, actor=principal.name, action="sign_from_before", subject="versions", details=details
                )
        return signed

    def _insert(
        self,
        connection: Connection,
        principal: Principal,
        draft: VersionDraft,
        manifest: VersionManifest,
        numbered: Numbered,
    ) -> None:
        publisher = self._publisher(draft, manifest)
        now_s = self._clock.wall_s()
        if manifest.ordinal == 1:
            connection.execute(insert(models).values(name=manifest.model, created_s=now_s))
        connection.execute(
            insert(versions).values(
                model=manifest.model,
                version=manifest.version,
                ordinal=manifest.ordinal,
                digest=manifest.digest,
                format=manifest.format,
                kind=manifest.kind,
                created_s=now_s,
                created_by=principal.name,
                manifest=msgspec.json.encode(manifest).decode(),
            )
        )
        key = self._keyring.signing()
        sign_version(connection, key, manifest, now_s, publisher)
        if draft.description is not None:
            described = merged(Description(), msgspec.to_builtins(draft.description))
            write_description(connection, manifest, described, principal.name, now_s)
        # Also where there are none: with them are written the words that the version is found by.
        write_tags(connection, manifest, draft.tags)
        details: dict[str, Any] = {
            "digest": manifest.digest,
            "format": manifest.format,
            "ordinal": manifest.ordinal,
            "trusts_code": manifest.trusts_code,
            "key_id": key.key_id,
        }
        if publisher is not None:
            details["publisher_key_id"] = publisher.key_id
        if numbered.against:
            details |= {"against": numbered.against, "changes": [change.what for change in numbered.changes]}
        self._journal.append(
            connection,
            actor=principal.name,
            action="register",
            subject=manifest.reference,
            details=details,
            after=manifest,
        )

    def models(self) -> tuple[ModelSummary, ...]:
        """All models by name."""
        query = select(versions.c.model, versions.c.version).order_by(versions.c.model, versions.c.ordinal)
        with self._database.read() as connection:
            created = {row.name: row.created_s for row in connection.execute(select(models))}
            numbers: dict[str, list[str]] = {name: [] for name in sorted(created)}
            for model, version in connection.execute(query):
                numbers[model].append(version)
        return tuple(
            ModelSummary(name, created[name], tuple(known), _highest_release(known)) for name, known in numbers.items()
        )

    def versions(self, model: str) -> tuple[VersionManifest, ...]:
        """The versions of a model in the order of their ordinals; NOT_FOUND for an unknown model."""
        with self._database.read() as connection:
            known = _manifests(connection, model)
            if not known:
                raise _unknown_model(connection, model)
        return tuple(known)

    def get(self, model: str, version: str | None = None) -> VersionManifest:
        """One version; without a number the highest release.

        Raises NOT_FOUND, naming what exists.
        """
        with self._database.read() as connection:
            return find_version(connection, model, version)


def find_version(connection: Connection, model: str, version: str | None) -> VersionManifest:
    """`Catalog.get` within a transaction that is already open."""
    if version is not None:
        known = select(versions.c.manifest).where(versions.c.model == model, versions.c.version == version)
        text = connection.execute(known).scalar_one_or_none()
        if text is not None:
            return _decode(text)
    numbers = _numbers(connection, model)
    if not numbers:
        raise _unknown_model(connection, model)
    wanted = _highest_release(numbers) if version is None else version
    if wanted is None:
        raise SalverError(
            "NOT_FOUND", f"model {model!r} has only pre-releases: {_listed(numbers)}", "name the version you want"
        )
    if wanted not in numbers:
        raise SalverError("NOT_FOUND", f"model {model!r} has no version {wanted[:80]!r}", f"it has {_listed(numbers)}")
    query = select(versions.c.manifest).where(versions.c.model == model, versions.c.version == wanted)
    return _decode(connection.execute(query).scalar_one())


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise SalverError(
            "INVALID_ARTIFACT", f"the artifact is of kind {kind[:80]!r}", f"use one of {', '.join(KINDS)}"
        )


def _numbers(connection: Connection, model: str) -> list[str]:
    query = select(versions.c.version).where(versions.c.model == model).order_by(versions.c.ordinal)
    return list(connection.execute(query).scalars())


def _manifests(connection: Connection, model: str) -> list[VersionManifest]:
    query = select(versions.c.manifest).where(versions.c.model == model).order_by(versions.c.ordinal)
    return [_decode(text) for text in connection.execute(query).scalars()]


def _decode(text: str) -> VersionManifest:
    return msgspec.json.decode(text, type=VersionManifest)


def _repeated(known: list[VersionManifest], draft: VersionDraft, wanted: str | None) -> VersionManifest | None:
    """The version that the draft repeats, if it does; raises ALREADY_EXISTS for a taken number."""
    if wanted is None:
        return known[-1] if known and difference(known[-1], draft) is None else None
    for manifest in known:
        if manifest.version == wanted:
            differing = difference(manifest, draft)
            if differing is None:
                return manifest
            free = number(known, draft.manifest("0.0.0", 1)).version
            raise SalverError(
                "ALREADY_EXISTS",
                f"{manifest.reference} is registered with other {differing} (digest {manifest.digest[:12]})",
                f"versions never change; register it under another number, for example {free}",
            )
    return None


def _highest_release(numbers: list[str]) -> str | None:
    """The highest number that is no pre-release, in the order of `SemanticVersion`."""
    releases = [version for version in map(SemanticVersion.parse, numbers) if not version.prerelease]
    return str(max(releases)) if releases else None


def _unknown_model(connection: Connection, model: str) -> SalverError:
    count = connection.execute(select(func.count()).select_from(models)).scalar_one()
    names = list(connection.execute(select(models.c.name).order_by(models.c.name).limit(20)).scalars())
    existing = f"registered are {_listed(names)}" if count else "nothing is registered yet: salver register NAME PATH"
    return SalverError("NOT_FOUND", f"there is no model {model[:140]!r}", existing)


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[-20:])
    return shown if len(names) <= 20 else f"..., {shown}"
