"""The catalog: every version of every model, written once.

A version is a row that nothing changes: the number, the ordinal, the digest and the signature
that a client was promised are the ones it gets for as long as the home exists.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, func, insert, select

from salver.clock import Clock
from salver.protocol.description import Description, merged
from salver.protocol.errors import SalverError
from salver.protocol.formats import KINDS
from salver.protocol.names import SemanticVersion, check_name
from salver.protocol.nearest import did_you_mean, listed
from salver.protocol.tables import VersionManifest
from salver.registry.attestation import sign_from_before, sign_version, verified_publisher
from salver.registry.availability import MAY_SERVE, is_deleted, put_away
from salver.registry.by_number import RELEASED, Highest, highest_and, latest, neighbours
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

__all__ = [
    "MOST_VERSIONS",
    "Added",
    "Catalog",
    "Limit",
    "Listing",
    "ModelSummary",
    "find_version",
    "highest_version",
    "require_model",
    "version_row",
]

MOST_VERSIONS: Final = 1000
"""Of one page."""
Limit = Annotated[int, msgspec.Meta(ge=1, le=MOST_VERSIONS)]
_TOLD: Final = 20
"""Names in a message."""


class Listing(msgspec.Struct, frozen=True):
    """Which versions of a model to list, by their ordinals."""

    limit: Limit = MOST_VERSIONS
    after: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    """Only those behind this one."""
    before: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None
    """Only those in front of this one."""
    last: bool = False
    """The newest first."""


FIRST: Final = Listing()

_LOOKED_THROUGH: Final = 1000
"""Names among which one that was not found is sought."""


class ModelSummary(msgspec.Struct, frozen=True):
    """One model at a glance."""

    name: str
    created_s: float
    versions: int
    """How many there are."""
    newest: str
    """The newest registration."""
    latest: str | None
    """The highest release that may serve: what "no version" means; None while there is none."""


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
            newest = next(iter(_page(connection, draft.model, Listing(limit=1, last=True))), None)
            existing = _repeated(connection, newest, draft, wanted)
            if existing is not None:
                self._publisher(draft, existing)
                return Added(existing, False, Numbered(existing.version))
            numbered = Numbered(wanted) if as_it_is and wanted else _number(connection, unnumbered, wanted)
            manifest = draft.manifest(numbered.version, newest.ordinal + 1 if newest else 1)
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
        connection.execute(insert(versions).values(version_row(manifest, now_s, principal.name)))
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
        if numbered.before:
            details |= {"before": numbered.before, "later_changes": [change.what for change in numbered.later_changes]}
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
        of_model = select(versions.c.version).where(versions.c.model == models.c.name).limit(1)
        query = select(
            models.c.name,
            models.c.created_s,
            # Ordinals count from 1, and nothing is removed.
            of_model.with_only_columns(func.max(versions.c.ordinal)).scalar_subquery(),
            of_model.order_by(versions.c.ordinal.desc()).scalar_subquery(),
            of_model.where(RELEASED, MAY_SERVE).order_by(versions.c.sort_key.desc()).scalar_subquery(),
        )
        with self._database.read() as connection:
            return tuple(ModelSummary(*row) for row in connection.execute(query.order_by(models.c.name)))

    def versions(self, model: str, listing: Listing = FIRST) -> tuple[VersionManifest, ...]:
        """A page of the versions of a model by their ordinals; NOT_FOUND for an unknown model."""
        with self._database.read() as connection:
            found = _page(connection, model, listing)
            if not found:
                require_model(connection, model)
        return found

    def highest(self, model: str, most: int, named: Collection[str]) -> Highest:
        """The highest versions of a model and those that are `named`; NOT_FOUND for an unknown model."""
        with self._database.read() as connection:
            require_model(connection, model)
            return highest_and(connection, model, most, named)


def version_row(manifest: VersionManifest, created_s: float, created_by: str) -> dict[str, Any]:
    """The row of `versions` that a version is kept as."""
    version = SemanticVersion.parse(manifest.version)
    return {
        "model": manifest.model,
        "version": manifest.version,
        "ordinal": manifest.ordinal,
        "digest": manifest.digest,
        "format": manifest.format,
        "kind": manifest.kind,
        "created_s": created_s,
        "created_by": created_by,
        "manifest": msgspec.json.encode(manifest).decode(),
        "sort_key": version.sort_key,
        "prerelease": bool(version.prerelease),
    }


def find_version(connection: Connection, model: str, version: str) -> VersionManifest:
    """One version by its number; raises NOT_FOUND, naming what exists."""
    found = _version(connection, model, version)
    if found is None:
        raise SalverError(
            "NOT_FOUND",
            f"model {model!r} has no version {version[:80]!r}",
            f"it has {_listed(_newest_numbers(connection, model))}",
        )
    return found


def highest_version(connection: Connection, model: str) -> VersionManifest:
    """The highest release that may serve; raises NOT_FOUND, saying what became of those that may not."""
    found = latest(connection, model)
    if found is not None:
        return found
    numbers = _newest_numbers(connection, model)
    usable = _newest_numbers(connection, model, MAY_SERVE) if numbers else []
    if usable:
        raise SalverError(
            "NOT_FOUND",
            f"of model {model!r} only pre-releases may serve: {_listed(usable)}",
            f"name the version you want, such as {model}@{usable[-1]}",
        )
    away = put_away(connection, model)
    raise SalverError(
        "NOT_FOUND",
        f"no version of model {model!r} may serve: {_listed([f'{each} is {away[each]}' for each in numbers])}",
        f"name one exactly to look at it, such as {model}@{numbers[-1]}; or register another",
    )


def require_model(connection: Connection, model: str) -> None:
    """Raise NOT_FOUND, naming what exists, for a model without a version."""
    if connection.execute(select(versions.c.model).where(versions.c.model == model).limit(1)).first() is None:
        raise _unknown_model(connection, model)


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise SalverError(
            "INVALID_ARTIFACT", f"the artifact is of kind {kind[:80]!r}", f"use one of {', '.join(KINDS)}"
        )


def _page(connection: Connection, model: str, listing: Listing) -> tuple[VersionManifest, ...]:
    query = select(versions.c.manifest).where(versions.c.model == model, versions.c.ordinal > listing.after)
    if listing.before is not None:
        query = query.where(versions.c.ordinal < listing.before)
    order = versions.c.ordinal.desc() if listing.last else versions.c.ordinal
    found = connection.execute(query.order_by(order).limit(listing.limit)).scalars()
    return tuple(map(VersionManifest.parse, found))


def _version(connection: Connection, model: str, version: str) -> VersionManifest | None:
    known = select(versions.c.manifest).where(versions.c.model == model, versions.c.version == version)
    text = connection.execute(known).scalar_one_or_none()
    return None if text is None else VersionManifest.parse(text)


def _newest_numbers(connection: Connection, model: str, *where: ColumnElement[bool]) -> list[str]:
    """One more than are told in a message, the newest last; NOT_FOUND for an unknown model."""
    query = select(versions.c.version).where(versions.c.model == model, *where)
    numbers = list(connection.execute(query.order_by(versions.c.ordinal.desc()).limit(_TOLD + 1)).scalars())
    if not numbers:
        require_model(connection, model)
    return numbers[::-1]


def _number(connection: Connection, unnumbered: VersionManifest, wanted: str | None) -> Numbered:
    version = None if wanted is None else SemanticVersion.parse(wanted)
    return number(neighbours(connection, unnumbered.model, version), unnumbered, wanted)


def _repeated(
    connection: Connection, newest: VersionManifest | None, draft: VersionDraft, wanted: str | None
) -> VersionManifest | None:
    """The version that the draft repeats, if it does; raises ALREADY_EXISTS for a taken number."""
    if wanted is None:
        same = newest is not None and difference(newest, draft) is None
        return newest if same and newest and not is_deleted(connection, newest.model, newest.version) else None
    taken = _version(connection, draft.model, wanted)
    if taken and is_deleted(connection, taken.model, taken.version):
        raise SalverError(
            "ALREADY_EXISTS",
            f"{taken.reference} was deleted, and its number is never given again",
            "register it without a number, or under a new one",
        )
    differing = difference(taken, draft) if taken else None
    if taken and differing:
        free = _number(connection, draft.manifest("0.0.0", 1), None).version
        raise SalverError(
            "ALREADY_EXISTS",
            f"{taken.reference} is registered with other {differing} (digest {taken.digest[:12]})",
            f"versions never change; register it under another number, for example {free}",
        )
    return taken


def _unknown_model(connection: Connection, model: str) -> SalverError:
    names = list(connection.execute(select(models.c.name).order_by(models.c.name).limit(_LOOKED_THROUGH)).scalars())
    existing = f"{did_you_mean(model, names)} registered are {listed(names)}".strip()
    if not names:
        existing = "nothing is registered yet: salver register NAME PATH"
    return SalverError("NOT_FOUND", f"there is no model {model[:140]!r}", existing)


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[-_TOLD:])
    return shown if len(names) <= _TOLD else f"..., {shown}"
