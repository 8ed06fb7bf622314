"""Models that are functions of the test's own, behind endpoints of a gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
from tests.gateway.servers import Served

from salver.protocol.request import BatchOutputs, Request, Response
from salver.protocol.signature import Signature
from salver.protocol.tables import DeploymentSpec, VersionManifest
from salver.routing.router import Target

Act = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


class Computed:
    """A service that answers at once with what a function makes of a request's arrays."""

    available = True

    def __init__(self, act: Act, *, batched: bool, warnings: tuple[str, ...] = ()) -> None:
        self.act, self.batched, self.warnings = act, batched, warnings
        self.asked: list[Request] = []

    def __call__(self, request: Request) -> asyncio.Future[Response]:
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self.asked.append(request)
        try:
            arrays = self.act({name: tensor.numpy() for name, tensor in request.inputs.items()})
        except Exception as error:
            answer.set_exception(error)
        else:
            stop = request.rows if self.batched else None
            batch = BatchOutputs(arrays, request.rows, 0.001, "thread")
            answer.set_result(Response("computed", "1.2.3", batch, 0, stop, self.warnings))
        return answer


def publish(
    served: Served, **models: tuple[Signature, Act] | tuple[Signature, Act, dict[str, Any]]
) -> dict[str, Computed]:
    """Serve functions under their names, beside what there is; the third of a tuple has `kind`, `warnings`, a spec."""
    assert served.plane is not None
    router = served.plane.router
    targets = dict(router.targets())
    services = {}
    for name, (signature, act, *more) in models.items():
        fields: dict[str, Any] = dict(*more)
        kind, warnings = fields.pop("kind", "predict"), fields.pop("warnings", ())
        services[name] = Computed(act, batched=signature.batched, warnings=warnings)
        manifest = VersionManifest(name, "1.2.3", 4, "ab" * 32, "python", (), signature, kind=kind)
        targets[name] = Target(DeploymentSpec(name, name, "1.2.3", **fields), manifest, services[name])
    served.thread.run(lambda: router.publish(targets, {}))
    return services
