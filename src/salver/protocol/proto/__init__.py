"""The messages of gRPC, from the .proto files beside this one.

They live in a pool of their own: a process that also uses another client of the protocol, which
registers the same names, must not fail at import. `make proto` writes `salver.binpb`.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

__all__ = ["POOL", "SERVICES", "message"]

_FILES: Final = FileDescriptorSet.FromString(files(__name__).joinpath("salver.binpb").read_bytes()).file
SERVICES: Final = tuple(f"{file.package}.{service.name}" for file in _FILES for service in file.service)


def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    for file in _FILES:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


POOL: Final = _pool()


def message(name: str) -> Any:
    """The class of a message by its full name; raises KeyError for one that is not there."""
    return GetMessageClass(POOL.FindMessageTypeByName(name))
