"""The method table of the gRPC listener: every path, its rule of access, its door."""

from __future__ import annotations

from salver.gateway.descriptions import Descriptions
from salver.gateway.grpc.call import Method
from salver.gateway.grpc.infer import GrpcInferDoor
from salver.gateway.grpc.introspection import Health, introspection_methods
from salver.gateway.grpc.oip import OipMethods, oip_methods
from salver.gateway.grpc.repository import repository_methods
from salver.gateway.repository import Controller
from salver.routing.router import Router

__all__ = ["all_methods"]


def all_methods(
    router: Router, descriptions: Descriptions, controller: Controller | None, max_elements: int
) -> dict[bytes, Method]:
    """Every method by its path; those of the repository are refused without a controller to forward them to."""
    methods = [
        *oip_methods(OipMethods(descriptions), GrpcInferDoor(router, max_elements)),
        *introspection_methods(Health(descriptions)),
        *repository_methods(controller),
    ]
    return {method.template.encode(): method for method in methods}
