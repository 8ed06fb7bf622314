"""What control publishes to the data path: one whole, numbered snapshot of desired state.

Omission means removal and applying a snapshot twice changes nothing, so a lost publication is
repaired by the next one and a server that has lost its controller serves on with the last it
read. Snapshots are JSON, written atomically into the data directory.
"""

from __future__ import annotations

import enum

import msgspec

from salver.protocol.formats import is_always_code
from salver.protocol.profile import Profile
from salver.protocol.signature import Signature

__all__ = [
    "BatchPolicy",
    "DeploymentSpec",
    "FileEntry",
    "Load",
    "Nonfinite",
    "Placement",
    "QueuePolicy",
    "Retirement",
    "Revocation",
    "RuntimeOptions",
    "StateSpec",
    "Tables",
    "TokenRecord",
    "Validate",
    "VersionManifest",
    "Webhook",
]


class Placement(enum.StrEnum):
    """Where a version computes."""

    AUTO = "auto"
    INLINE = "inline"
    THREAD = "thread"
    PROCESS = "process"


class Load(enum.StrEnum):
    """When a version is loaded."""

    EAGER = "eager"
    """When it is deployed."""
    LAZY = "lazy"
    """When it is asked; it may be unloaded again when others need the memory."""


class BatchPolicy(enum.StrEnum):
    """When a free replica takes a batch that could still grow."""

    EAGER = "eager"
    """At once: it takes what waits, and waits for nobody."""
    TIMEOUT = "timeout"
    """When the batch is full, or its oldest request has waited `max_wait_s`."""
    HYBRID = "hybrid"
    """When `min_batch` rows wait, or the oldest request has waited `max_wait_s`."""
    PREDICTIVE = "predictive"
    """As soon as waiting for the next request would cost more time than it saves, by the rate of arrivals and
    the service curve; `max_wait_s` bounds it where that is set."""
    DEFERRED = "deferred"
    """As late as the SLO, which it needs, permits: the fullest batches."""


class Validate(enum.StrEnum):
    """What happens to values outside the profile of the training inputs."""

    WARN = "warn"
    STRICT = "strict"
    OFF = "off"


class Nonfinite(enum.StrEnum):
    """What happens to NaN and infinity in outputs that leave as JSON."""

    ERROR = "error"
    NULL = "null"
    PASS = "pass"  # noqa: S105 - a policy, not a secret

    @property
    def of_python(self) -> Nonfinite:
        """The same for protocols whose servers write Python's own JSON, NaN and all: there `error` has no place."""
        return Nonfinite.PASS if self is Nonfinite.ERROR else self


class FileEntry(msgspec.Struct, frozen=True):
    """One file of an artifact; `path` is relative, with forward slashes."""

    path: str
    sha256: str
    size_bytes: int


class StateSpec(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A pair of tensors of a graph by which it hands a state from one step of a sequence to the next.

    `shape` has one -1, the batch dimension, and that may be any; none where the graph has no batch dimension.
    """

    input: str
    output: str
    datatype: str
    shape: tuple[int, ...]
    initial: float = 0.0
    """What every element is before the first step."""


class VersionManifest(msgspec.Struct, frozen=True, omit_defaults=True):
    """One immutable version: identity, bytes, signature, and how its format loads it.

    `digest` is the SHA-256 over the sorted file entries; `ordinal` counts the versions of the
    model from 1 for protocols that know only integers.
    """

    model: str
    version: str
    ordinal: int
    digest: str
    format: str
    files: tuple[FileEntry, ...]
    signature: Signature
    kind: str = "predict"
    preprocess: str = ""
    postprocess: str = ""
    cost: str = ""
    length: str = ""
    """The input whose length says which requests are run together; see `salver.runtime.classes`."""
    idempotent: bool = True
    trusts_code: bool = False
    """Somebody with the right vouched for the code or pickle inside; it runs in a worker only."""
    profile: Profile | None = None
    metadata: dict[str, str] = {}
    warm_up: bool | None = None
    """Whether invented rows are run before the version serves; None leaves it to what it is made of."""
    streams: bool = False
    """Whether it can answer bit by bit; see `salver.runtime.streams`."""
    states: tuple[StateSpec, ...] = ()
    """What a graph of kind `sequence` keeps for each session; no part of the signature."""
    attestation: str = ""
    """The signature over all of this: a bundle of `salver.security.model_signing`. Only what is published has it."""

    @classmethod
    def parse(cls, text: str | bytes) -> VersionManifest:
        """Read the JSON that stores keep; raises `msgspec.MsgspecError` for what is none."""
        return msgspec.json.decode(text, type=cls)

    @property
    def keeps_state(self) -> bool:
        """Whether its requests are steps of sessions; see `salver.runtime.sessions`."""
        return self.kind == "sequence"

    @property
    def reference(self) -> str:
        """NAME@VERSION."""
        return f"{self.model}@{self.version}"

    @property
    def size_bytes(self) -> int:
        """Of its files."""
        return sum(file.size_bytes for file in self.files)

    @property
    def is_repeatable(self) -> bool:
        """Whether an answer may be given again: it comes whole, and neither has asking effects nor what was before."""
        return self.idempotent and not self.streams and self.kind in ("predict", "embed")

    @property
    def runs_user_code(self) -> bool:
        """Whether loading or running it executes code that came with the artifact."""
        return self.trusts_code or is_always_code(self.format) or bool(self.preprocess or self.postprocess)


class RuntimeOptions(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How a runtime uses the machine."""

    threads: int = 1
    """Threads inside one operator, 1 to 256."""
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    """ONNX Runtime execution providers, best first."""
    optimization: str = "all"
    """ONNX graph optimisation: disabled, basic, extended or all."""
    pin: tuple[int, ...] = ()
    """Processors the computing threads are bound to; empty for no binding."""


class QueuePolicy(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What one priority level may queue; 0 takes the deployment's own."""

    max_queue: int = 0
    """Requests of this level that wait at most."""
    max_age_s: float = 0.0
    """Refuse newcomers of this level while its oldest has waited for longer."""
    deadline_s: float = 0.0
    """Seconds that a request of this level may take."""


class DeploymentSpec(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Desired state of one endpoint: which version, how many replicas, how batched and checked.

    The bounds are those of `salver.registry.settings`, which refuses everything else.
    """

    endpoint: str
    """The stable name that clients call."""
    model: str
    """Whose version answers; the endpoint has the same name unless another was asked for."""
    version: str
    """A registered semantic version, in full."""
    replicas: int = 1
    """Loaded copies that run batches side by side; 1 to 64."""
    placement: Placement = Placement.AUTO
    """Where it computes; users' code is in a worker process whatever this says."""
    max_batch: int = 256
    """Rows that run together at most, 1 to 65 536; a request with more rows is refused."""
    max_cost: int = 0
    """Cost that runs together at most, in the version's own `cost` unit, to 2**53; 0 for no bound."""
    policy: BatchPolicy = BatchPolicy.EAGER
    """When a free replica takes a batch that could still grow."""
    max_wait_s: float = 0.0
    """Seconds the oldest request waits for a fuller batch at most, 0 to 10 and below `deadline_s`; less where a
    deadline would pass. For the policies timeout and hybrid, which need it, and predictive."""
    min_batch: int = 1
    """Rows that policy hybrid waits for, 1 to `max_batch`."""
    slo_s: float = 0.0
    """Seconds within which requests should be answered, to 3600: steers how many rows run together, and refuses
    requests that would come later anyway. 0 for no such objective."""
    max_queue: int = 1024
    """Requests that wait at most, 1 to 1 000 000; the next one is refused with QUEUE_FULL."""
    max_age_s: float = 0.0
    """Refuse newcomers while the oldest request has waited for longer, to 86 400; 0 for no such bound."""
    priorities: tuple[QueuePolicy, ...] = ()
    """One policy for each priority level, the most urgent first, at most 16; none for a single level."""
    max_streams: int = 64
    """Streams open at one time on one replica at most, 1 to 4096; the next one is refused with QUEUE_FULL."""
    max_sessions: int = 1024
    """Sessions that a version which keeps state has at one time at most, 1 to 1 000 000, over all replicas."""
    session_idle_s: float = 60.0
    """Seconds after which a session that nobody asks for is ended, 0.1 to 86 400."""
    cache_bytes: int = 0
    """Bytes of answers kept to answer identical requests with, to 2**40; 0 keeps none."""
    cache_ttl_s: float = 300.0
    """Seconds for which a kept answer is given, 0.001 to 2 592 000."""
    deadline_s: float = 30.0
    """Seconds a request may take when it names no shorter time itself, 0.001 to 86 400."""
    hang_s: float = 0.0
    """Seconds after which a running batch counts as hung, to 86 400; 0: three times the longest seen or expected,
    at least 5."""
    load: Load = Load.EAGER
    """Whether it is loaded when it is deployed, or when it is asked."""
    warm_from_traffic: bool = True
    """Whether a version that takes the place of another is tried on some of that one's last inputs before it serves."""
    load_timeout_s: float = 120.0
    """Seconds that loading and warming up one replica may take, 0.1 to 86 400, before it has failed."""
    validate: Validate = Validate.WARN
    """What happens to values outside the profile, for versions that have one."""
    nonfinite: Nonfinite = Nonfinite.ERROR
    """What happens to NaN and infinity in answers as JSON; binary ones pass the bits."""
    required: bool = True
    """Whether the server is not ready while this endpoint has no healthy replica."""
    worker_memory_bytes: int = 4 * 2**30
    """Private memory of one worker process at most, 2**26 to 2**43 bytes."""
    runtime: RuntimeOptions = RuntimeOptions()
    """How each replica uses the machine."""
    labels: tuple[str, ...] = ()
    """What TensorFlow Serving's clients may call the version that answers, at most 16 of up to 64 characters."""
    generation: int = 0
    """Raised by each deploy, so that deploying the same version again loads it again."""


class TokenRecord(msgspec.Struct, frozen=True):
    """A token as it is stored and published: never the secret, only its keyed hash."""

    id: str
    name: str
    role: str
    tenant: str
    hash: str
    created_s: float = 0.0
    expires_s: float | None = None
    """From this date on it is worth nothing; None for never."""


class Webhook(msgspec.Struct, frozen=True):
    """A place that may be told of jobs. Where it is, only the controller knows."""

    name: str
    tenant: str = ""
    """Whose jobs may name it; empty for everybody's."""


class Retirement(msgspec.Struct, frozen=True):
    """A version that is to be archived: whoever asks it is told."""

    model: str
    version: str
    proposed_s: float
    due_s: float


class Revocation(msgspec.Struct, frozen=True):
    """A version that must not be loaded any more."""

    model: str
    version: str
    why: str
    revoked_by: str
    revoked_s: float

    @property
    def reference(self) -> str:
        """NAME@VERSION."""
        return f"{self.model}@{self.version}"


class Tables(msgspec.Struct, frozen=True):
    """The published snapshot: everything the data path needs to serve on its own."""

    revision: int = 0
    versions: tuple[VersionManifest, ...] = ()
    deployments: tuple[DeploymentSpec, ...] = ()
    tokens: tuple[TokenRecord, ...] = ()
    webhooks: tuple[Webhook, ...] = ()
    revocations: tuple[Revocation, ...] = ()
    retirements: tuple[Retirement, ...] = ()
    """Of versions that are deployed."""

    def version_of(self, deployment: DeploymentSpec) -> VersionManifest:
        """The manifest a deployment names; raises KeyError in a snapshot that contradicts itself."""
        for manifest in self.versions:
            if manifest.model == deployment.model and manifest.version == deployment.version:
                return manifest
        raise KeyError(f"{deployment.model}@{deployment.version}")
