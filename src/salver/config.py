"""Process settings: `salver.toml` and environment variables.

Desired state is not here but in the database.

Every setting of section `[server]` can be overridden by `SALVER_SERVER_NAME`, of `[limits]` by
`SALVER_LIMITS_NAME`, of `[jobs]` by `SALVER_JOBS_NAME`.
What no setting is called is refused, in the file and in the environment.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from salver.gateway.limits import Limits
from salver.protocol.errors import SalverError
from salver.protocol.jobs import JobLimits
from salver.protocol.names import check_name

__all__ = ["ServerSettings", "Settings", "default_home", "read_settings"]


class ServerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How `salver serve` runs."""

    host: str = "127.0.0.1"
    """Address of the data listener."""
    http: int = 8080
    """Port of the data listener; 0 takes a free one."""
    grpc: int | None = None
    """Port of the gRPC listener; 0 takes a free one. Without a port there is none."""
    control_host: str = "127.0.0.1"
    """Address of the control listener."""
    control: int = 8090
    """Port of the control listener; 0 takes a free one."""
    name: str = "salver"
    """What the server calls itself to clients; some clients expect "triton"."""
    processes: int = 1
    """Server processes behind the same ports, 1 to 64; each loads every version."""
    memory_bytes: int = 0
    """Memory that loaded versions may take in all processes together; 0 sets no such budget."""
    default_endpoint: str = ""
    """The endpoint that answers where a protocol's paths name no model; empty: the only one that is deployed."""
    csv_header: str = "present"
    """Whether a CSV body begins with names where it does not say so itself: present, or absent as SageMaker has it."""
    health_route: str = ""
    """A path that answers like `/ping`, for platforms that choose it."""
    predict_route: str = ""
    """A path that answers like `:predict` of Vertex AI, for platforms that choose it."""
    model_store: str = ""
    """A directory whose artifacts may be registered by naming their path; empty: none may."""
    default_token: str = ""
    """The token that counts for callers who bring none, in a container whose platform knows its callers."""
    tls_cert: str = ""
    tls_key: str = ""
    insecure: bool = False
    """Allow listening beyond this machine without TLS and tokens."""
    require_token: bool = False
    """Ask every caller of the data listener for a token, on loopback too."""
    repository_on_data: bool = False
    """Offer load and unload of models on the data listener, to operators."""
    lame_duck_s: float = 5.0
    """After SIGTERM: keep serving for so long while load balancers look away."""
    hang_s: float = 10.0
    """A server process or controller whose event loop stands still for longer is replaced."""
    drain_s: float = 30.0
    """Then: how long requests in flight may still take."""
    allowed_origins: str = ""
    """Origins whose pages may open WebSockets here, such as https://app.example.com; a comma between two."""
    timing: bool = False
    """Say in every answer why it took as long as it did (Server-Timing), not only when a request asks."""
    access_log_every: int = 1000
    """Log one of so many requests; 0 for failures only."""
    log_level: str = "INFO"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings of one process tree."""

    server: ServerSettings = ServerSettings()
    limits: Limits = Limits()
    jobs: JobLimits = JobLimits()


_PREFIX: Final = "SALVER_"
_ROUTE: Final = re.compile(r"(?:/[A-Za-z0-9._~:-]+)+")
"""A path of plain segments, as Vertex AI makes them."""


def default_home(environment: Mapping[str, str] = os.environ) -> Path:
    """`SALVER_HOME`, else `~/.salver`."""
    return Path(environment.get("SALVER_HOME") or Path.home() / ".salver")


def read_settings(file: Path | None, environment: Mapping[str, str] = os.environ, **given: Any) -> Settings:
    """Settings from a file, then the environment, then `given` ones of `[server]` that are not None.

    Raises INVALID_SETTING naming the setting, for unknown ones and for values of another type.
    """
    table: dict[str, dict[str, Any]] = {"server": {}, "limits": {}, "jobs": {}}
    if file is not None:
        table |= _read_file(file)
    for section in ("server", "limits", "jobs"):
        prefix = f"{_PREFIX}{section.upper()}_"
        for name, value in environment.items():
            if name.startswith(prefix):
                table[section][name.removeprefix(prefix).lower()] = value
    table["server"] |= {name: value for name, value in given.items() if value is not None}
    try:
        settings = msgspec.convert(table, Settings, strict=False)  # the environment knows only text
    except msgspec.ValidationError as error:
        raise SalverError("INVALID_SETTING", f"the settings are wrong: {error}", "see docs/operations.md") from None
    _check(settings)
    return settings


def _read_file(file: Path) -> dict[str, Any]:
    try:
        content = msgspec.toml.decode(file.read_bytes())
    except OSError as error:
        raise SalverError("INVALID_SETTING", f"cannot read {str(file)!r}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SalverError("INVALID_SETTING", f"{file.name}: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(section, dict) for section in content.values()):
        raise SalverError("INVALID_SETTING", f"{file.name}: settings stand in sections such as [server]")
    try:
        msgspec.convert(content, Settings)
    except msgspec.ValidationError as error:
        raise SalverError("INVALID_SETTING", f"{file.name}: {error}", "see docs/operations.md") from None
    return content


def _check(settings: Settings) -> None:
    server = settings.server
    for name in ("http", "control"):
        port = getattr(server, name)
        if not 0 <= port <= 65535:
            raise SalverError("INVALID_SETTING", f"server.{name} is {port}", "a port is 0-65535")
    _check_platform(server)
    if bool(server.tls_cert) != bool(server.tls_key):
        raise SalverError("INVALID_SETTING", "only one of server.tls_cert and server.tls_key is set", "give both")
    for name, least in (("lame_duck_s", 0), ("drain_s", 0), ("hang_s", 1)):
        if not least <= getattr(server, name) <= 3600:
            raise SalverError(
                "INVALID_SETTING", f"server.{name} is {getattr(server, name)}", f"use {least}-3600 seconds"
            )
    if server.access_log_every < 0:
        raise SalverError(
            "INVALID_SETTING", f"server.access_log_every is {server.access_log_every}", "use 0 for failures only"
        )
    if server.log_level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise SalverError(
            "INVALID_SETTING", f"server.log_level is {server.log_level!r}", "use DEBUG, INFO, WARNING, ERROR"
        )
    for section, limits in (("limits", settings.limits), ("jobs", settings.jobs)):
        for name in limits.__struct_fields__:
            limit = getattr(limits, name)
            if not isinstance(limit, bool) and not 0 < limit < math.inf:
                raise SalverError("INVALID_SETTING", f"{section}.{name} is {limit}", "use a finite number above 0")


def _check_platform(server: ServerSettings) -> None:
    """The settings for platforms that choose paths and formats."""
    if not 1 <= server.processes <= 64:
        raise SalverError("INVALID_SETTING", f"server.processes is {server.processes}", "use 1-64")
    if not 0 <= server.memory_bytes <= 2**50:
        raise SalverError("INVALID_SETTING", f"server.memory_bytes is {server.memory_bytes}", "use bytes, 0 for none")
    if server.default_endpoint:
        try:
            check_name(server.default_endpoint, "server.default_endpoint")
        except SalverError as error:
            raise SalverError("INVALID_SETTING", error.message, error.remedy) from None
    if server.csv_header not in ("present", "absent"):
        raise SalverError("INVALID_SETTING", f"server.csv_header is {server.csv_header!r}", "use present or absent")
    for name in ("health_route", "predict_route"):
        route = getattr(server, name)
        if route and not _ROUTE.fullmatch(route):
            raise SalverError("INVALID_SETTING", f"server.{name} is {route[:120]!r}", "use a path such as /predict")
    if server.default_token and server.require_token:
        raise SalverError(
            "INVALID_SETTING",
            "server.default_token answers those without a token, whom server.require_token refuses",
            "set one of them",
        )
