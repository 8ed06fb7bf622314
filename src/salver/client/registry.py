"""A registry for Python programs: publish versions, find them, move them on, and fetch them.

    registry = salver.Registry("https://models.example.com:8090", token=...)
    version = registry.publish_model("digits", "model.onnx", description={"owner": "vision"})
    registry.update_model_stage("digits", version.version, "staging", why="nightly run 812")
    registry.get_model("digits", "production").download("digits/")

Without a URL it is the home on this machine. Everything goes through the actions of the administration, so a
registry can do what the command line can, and is held to the same rules.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import ssl
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import httpx2
import msgspec

from salver.client.address import check_timeout, check_token, check_verify, read_url, tls_context
from salver.client.model_version import ListedVersion, ModelVersion
from salver.client.registry_places import Artifact, HomePlace, Place, Progress, ServerPlace, repeated
from salver.config import default_home
from salver.control.action import Action, Nothing
from salver.control.actions.changes import CHANGES, OfChanges
from salver.control.actions.deployments import DEPLOY
from salver.control.actions.descriptions import (
    DESCRIBE,
    MOVE_ALIAS,
    REMOVE_ALIAS,
    SHOW_VERSION,
    TAG,
    AliasMove,
    AliasRemoval,
    TagChanges,
)
from salver.control.actions.descriptions import Changes as DescriptionChanges
from salver.control.actions.evidence import EVALUATIONS, RECORD_EVALUATION, NewEvaluation, OfEvaluations
from salver.control.actions.lifecycle import APPROVE, PROMOTE, STAGES, Approve, OfStages
from salver.control.actions.models import MODELS, OfVersion, each_version
from salver.control.actions.search import SEARCH, OfSearch
from salver.control.actions.status import STATUS
from salver.control.origin import Sources, origin_of
from salver.protocol.description import Description
from salver.protocol.errors import SalverError
from salver.protocol.names import check_name
from salver.protocol.stages import Stage
from salver.protocol.tables import DeploymentSpec, VersionManifest
from salver.registry.approvals import Approved
from salver.registry.catalog import ModelSummary
from salver.registry.deploy_request import DeployRequest
from salver.registry.description_rows import AliasMoved
from salver.registry.evidence import Evaluation, RecordedEvaluation
from salver.registry.lifecycle import Promotion, PromotionRequest
from salver.registry.search import Found
from salver.storage.journal import JournalRecord

__all__ = ["Registry"]

_CONNECT_S: Final = 10.0
_WAIT_S: Final = 25.0
Asked = TypeVar("Asked", bound=msgspec.Struct)
Answer = TypeVar("Answer")


class Registry:
    """A registry: of the server at `url`, the root of a control listener, or of a home on this machine.

    `token` is what `salver token create` printed; without one that in SALVER_TOKEN is used. `home` is the directory
    to use without a URL: by default that of the command line. Only publishing makes a home where there is none.
    `verify` is what TLS certificates are checked against, as for `salver.Client`. http is for this machine: elsewhere
    the token would be readable on the way, and so is refused unless `allow_http` says that the way is private.

    May be shared by threads. Failures are `SalverError`. Calls are repeated a few times where the server was busy
    or away and asking twice changes nothing.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        home: Path | str | None = None,
        verify: ssl.SSLContext | bool = True,
        timeout_s: float = 150.0,
        allow_http: bool = False,
    ) -> None:
        if url is not None and home is not None:
            raise SalverError("INVALID_SETTING", "both a URL and a home are given", "give one of them")
        check_timeout(timeout_s)
        self._place: Place
        if url is None:
            self._place = HomePlace(Path(home or default_home()).expanduser().absolute())
        else:
            self._place = ServerPlace(_connection(url, token, check_verify(verify), timeout_s, allow_http=allow_http))

    def __repr__(self) -> str:
        return f"<Registry {self._place!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._place.close()

    def _do(self, action: Action[Asked, Answer], asked: Asked, why: str = "") -> Answer:
        def ask() -> Answer:
            with self._place.administration(why) as admin:
                return admin.do(action, asked)

        answer: Answer = repeated(action.method, ask)
        return answer

    # Publishing and fetching.

    def publish_model(  # noqa: PLR0913 - one argument for each thing that is said
        self,
        name: str,
        path: Path | str,
        *,
        version: str | None = None,
        format: str | None = None,
        trust_code: bool = False,
        description: Mapping[str, Any] | str | None = None,
        training_data: Path | str | None = None,
        target: str = "",
        lock: Path | str | None = None,
        git: bool = True,
        tags: Mapping[str, str] | None = None,
        aliases: Iterable[str] = (),
        progress: Progress | None = None,
        why: str = "",
    ) -> ModelVersion:
        """Register what is at `path`, a file or a directory, as a version of a model.

        Without `version` it gets the next number that says enough of what changed; publishing the same again gives
        the same version (`created` says which it was). `description` is its text, or fields as `log_metadata` takes
        them, and goes before what is found out here: the digest of the file `training_data`, whose columns but
        `target` are the profile of the inputs if they fit; the `lock` file of its environment; and, unless `git` is
        False, the commit of the checkout that the artifact lies in, else of the working directory.
        `trust_code` vouches for a pickle. `aliases` are moved to it, which takes the right to deploy.
        `progress` is called with a file's path, how many of its bytes were sent, and how many there are.
        """
        check_name(name, "model")
        said = {"description": description} if isinstance(description, str) else dict(description or {})
        found = origin_of(Path(path), Sources(_path(training_data), target, _path(lock), git), said)
        artifact = Artifact(
            name,
            Path(path),
            version,
            format,
            trust_code,
            found.description,
            found.columns,
            dict(tags or {}),
            progress or _silent,
        )
        done = self._place.publish(artifact, why)
        for alias in aliases:
            self.set_alias(name, alias, done.manifest.version, why=why)
        return msgspec.structs.replace(self.get_model(name, done.manifest.version), created=done.created)

    def get_model(self, name: str, version: str | Stage = "latest") -> ModelVersion:
        """A version by its number, an alias, a stage (the highest version in it) or "latest"; NOT_FOUND."""
        page = self._do(SHOW_VERSION, OfVersion(check_name(name, "model"), str(version)))
        return ModelVersion(page, self._download)

    def _download(self, manifest: VersionManifest, into: Path, progress: Progress | None) -> Path:
        """See `ModelVersion.download`."""
        into = into.absolute()
        if into.exists() and (not into.is_dir() or any(into.iterdir())):
            raise SalverError("ALREADY_EXISTS", f"{into.name!r} is there and is not empty", "name a new directory")
        into.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{into.name}.", dir=into.parent))
        try:
            for file in manifest.files:
                target = unfinished / file.path
                target.parent.mkdir(parents=True, exist_ok=True)
                self._place.fetch(manifest, file, target, progress or _silent)
            unfinished.chmod(0o755)
            unfinished.rename(into)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        return into

    # Finding.

    def list_models(self) -> tuple[ModelSummary, ...]:
        """All models by name."""
        return self._do(MODELS, Nothing())

    def list_model_versions(self, name: str) -> tuple[ListedVersion, ...]:
        """The versions of a model, the oldest first, and where each stands."""
        stages = {each.version: each for each in self._do(STAGES, OfStages(check_name(name, "model")))}

        def ask() -> tuple[VersionManifest, ...]:
            with self._place.administration("") as admin:
                return tuple(each_version(admin, name))

        return tuple(
            ListedVersion(manifest, here.stage, here.since_s)
            for manifest in repeated("GET", ask)
            if (here := stages.get(manifest.version)) is not None
        )

    def search(self, words: str = "", *, filter: str = "", semantic: bool = False, limit: int = 20) -> Found:
        """Versions by words, a filter such as `metrics.auc >= 0.9 and stage = production`, or meaning."""
        return self._do(SEARCH, OfSearch(words, filter, semantic, limit))

    # Saying what is known.

    def log_metadata(self, name: str, version: str, *, why: str = "", **fields: Any) -> Description:
        """Change fields of a version's description; None removes one, and mappings are merged. Returns all of it.

        The fields are those of `salver.protocol.description.Description`, such as `metrics`, `training_data`, `owner`.
        """
        return self._do(DESCRIBE, DescriptionChanges(check_name(name, "model"), version, _plain(fields)), why)

    def set_tags(self, name: str, version: str, tags: Mapping[str, str | None], *, why: str = "") -> dict[str, str]:
        """Set tags of a version, and remove those given as None; returns all of them."""
        return self._do(TAG, TagChanges(check_name(name, "model"), version, dict(tags)), why)

    def set_alias(
        self, name: str, alias: str, version: str, *, if_version: str | None = None, why: str = ""
    ) -> AliasMoved:
        """Let an alias such as "champion" stand for a version; with `if_version` only if it stands for that now."""
        return self._do(MOVE_ALIAS, AliasMove(check_name(name, "model"), alias, version, if_version), why)

    def remove_alias(self, name: str, alias: str, *, why: str = "") -> AliasMoved:
        """Let an alias stand for nothing."""
        return self._do(REMOVE_ALIAS, AliasRemoval(check_name(name, "model"), alias), why)

    def record_evaluation(
        self, name: str, version: str, document: Mapping[str, Any], *, why: str = ""
    ) -> RecordedEvaluation:
        """Record what an evaluation found, as evidence for gates; the same document again changes nothing."""
        return self._do(RECORD_EVALUATION, NewEvaluation(check_name(name, "model"), version, dict(document)), why)

    def evaluations(self, name: str, version: str | None = None, *, limit: int = 100) -> tuple[Evaluation, ...]:
        """What evaluations of a model or one version found, the newest first."""
        return self._do(EVALUATIONS, OfEvaluations(check_name(name, "model"), version, limit))

    # The way to production.

    def update_model_stage(
        self,
        name: str,
        version: str,
        stage: str | Stage,
        *,
        why: str = "",
        if_stage: str | Stage | None = None,
        emergency: bool = False,
        dry_run: bool = False,
    ) -> Promotion:
        """Bring a version to a stage; to be there already is to have arrived.

        Raises REFUSED_BY_POLICY naming the gates that are not open, unless `dry_run` only asks what they say;
        ILLEGAL_TRANSITION for a way that there is not, CONFLICT where it is not in `if_stage`.
        """
        asked = PromotionRequest(
            check_name(name, "model"),
            version,
            _stage(stage),
            why,
            None if if_stage is None else _stage(if_stage),
            None,
            emergency,
            dry_run,
        )
        done = self._do(PROMOTE, asked, why)
        if done.moved or done.already or dry_run:
            return done
        assert done.decision is not None
        closed = "; ".join(
            f"{gate.gate}: {gate.verdict}, {', '.join(gate.reasons)}"
            for gate in done.decision.gates
            if gate.verdict != "successful"
        )
        raise SalverError(
            "REFUSED_BY_POLICY",
            f"{done.reference} stays in {done.stage}: the way to {asked.target} is "
            f"{done.decision.verdict}: {closed[:1000]}",
            f"decision {done.decision.id} lists the evidence: salver decisions {done.reference}",
        )

    def approve(self, name: str, version: str, stage: str | Stage, *, why: str = "") -> Approved:
        """Agree that a version goes to a stage."""
        return self._do(APPROVE, Approve(check_name(name, "model"), version, _stage(stage), why), why)

    def deploy(
        self, name: str, version: str | None = None, *, endpoint: str | None = None, why: str = "", **settings: Any
    ) -> DeploymentSpec:
        """Have an endpoint, by default the one named like the model, serve a version; see docs/deployments.md."""
        return self._do(DEPLOY, DeployRequest(check_name(name, "model"), version, endpoint, _plain(settings)), why)

    def deployments(self) -> tuple[DeploymentSpec, ...]:
        """What each endpoint is to serve."""
        return self._do(STATUS, Nothing()).deployments

    # Following.

    def changes(
        self, after: int | None = None, *, actions: Iterable[str] = (), subjects: Iterable[str] = ()
    ) -> Iterator[JournalRecord]:
        """What has changed behind record `after`; of a server also what changes next, for ever.

        Without `after` it begins with what changes from now on. Names a model for all its versions. Raises
        CONTROL_UNAVAILABLE when a server stays away; go on behind the last record that came.
        """
        asked = OfChanges(after, 1000, ",".join(actions), ",".join(subjects))
        if after is None:
            asked = msgspec.structs.replace(asked, after=self._do(CHANGES, asked).position)
        waits = isinstance(self._place, ServerPlace)
        while True:
            found = self._do(CHANGES, msgspec.structs.replace(asked, wait_s=_WAIT_S if waits else 0.0))
            yield from found.records
            asked = msgspec.structs.replace(asked, after=found.position)
            if not waits and not found.records:
                return


def _path(given: Path | str | None) -> Path | None:
    return None if given is None else Path(given)


def _silent(*_: object) -> None:
    """Progress that nobody wants to see."""


def _stage(text: str | Stage) -> Stage:
    try:
        return Stage(text)
    except ValueError:
        raise SalverError("INVALID_PARAMETER", f"stage {text!r}", f"use one of {', '.join(Stage)}") from None


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Structures as what they are in JSON, so that those of `salver.protocol` can be given too."""
    try:
        plain: dict[str, Any] = msgspec.to_builtins(dict(fields))
    except TypeError as error:
        raise SalverError("INVALID_PARAMETER", f"a value cannot be JSON: {error}", "give plain values") from None
    return plain


def _connection(
    url: str, token: str | None, verify: ssl.SSLContext | bool, timeout_s: float, *, allow_http: bool
) -> httpx2.Client:
    address = read_url(url)
    if address.is_grpc:
        raise SalverError("INVALID_SETTING", f"{url!r} is of gRPC", "give the control listener: https://HOST:8090")
    if not (address.secure or allow_http or _is_here(address.host)):
        raise SalverError(
            "REFUSED_BY_POLICY",
            f"{url!r} is another machine, asked over http: whoever is on the way could read the token",
            "use https, or say allow_http=True where the way is private",
        )
    secret = token or os.environ.get("SALVER_TOKEN") or ""
    if not secret:
        raise SalverError("UNAUTHENTICATED", "there is no token", "pass token=, or set SALVER_TOKEN")
    return httpx2.Client(
        base_url=f"{address.scheme}://{address.authority}{address.prefix}",
        headers={"authorization": f"Bearer {check_token(secret)}"},
        verify=tls_context(verify) if address.secure else False,
        timeout=httpx2.Timeout(timeout_s, connect=min(_CONNECT_S, timeout_s)),
        follow_redirects=False,
    )


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
