"""Reflection for clients without the protocol files: version 1, and v1alpha for older clients.

The library supports v1alpha only. Version 1 has the same messages with the same numbers in another package, so the library's
servicer answers both. Source: gRPC, "grpc/reflection/v1/reflection.proto".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pool, text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection, reflection_pb2

SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")

# Neither has types.
_reflection: Any = reflection
_messages: Any = reflection_pb2


def add_reflection(server: grpc.aio.Server, services: Iterable[str]) -> None:
    """Serve reflection. services: their full names; those of reflection itself are added."""
    _describe_stable()
    names = (*services, *SERVICES)
    answer: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
        _reflection.aio.ReflectionServicer(names).ServerReflectionInfo,
        request_deserializer=_messages.ServerReflectionRequest.FromString,
        response_serializer=_messages.ServerReflectionResponse.SerializeToString,
    )
    handlers = {"ServerReflectionInfo": answer}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, handlers) for name in SERVICES])


def _describe_stable() -> None:
    """Register the descriptors of version 1, so that reflection can describe itself."""
    described = FileDescriptorProto.FromString(_messages.DESCRIPTOR.serialized_pb)
    text = text_format.MessageToString(described).replace("v1alpha", "v1")
    descriptor_pool.Default().Add(text_format.Parse(text, FileDescriptorProto()))
