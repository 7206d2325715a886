"""Write the Python code of the protocol files in src/firebox/doors/runner/proto anew. A test holds that it is up to date.

Beside what grpcio-tools makes (messages, their types, clients and servers) this writes the types of clients and servers.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import grpc_tools
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet, ServiceDescriptorProto
from grpc_tools import protoc

SOURCE = Path(__file__).resolve().parent.parent / "src"
FOLDER = Path("firebox/doors/runner/proto")
"""Relative to SOURCE: the generated modules import each other by the names they have in the package."""
NAMES = ("auth", "runner")


def generate(target: Path) -> list[Path]:
    """Write the modules below `target`, in the folders of the package. Returns their paths, relative to it."""
    with tempfile.NamedTemporaryFile() as described:
        arguments = [
            "protoc",
            f"--proto_path={SOURCE}",
            f"--proto_path={Path(grpc_tools.__file__).parent / '_proto'}",
            f"--python_out={target}",
            f"--pyi_out={target}",
            f"--grpc_python_out={target}",
            f"--descriptor_set_out={described.name}",
            *(str(FOLDER / f"{name}.proto") for name in NAMES),
        ]
        if protoc.main(arguments):
            sys.exit("protoc did not take the protocol files")
        files = FileDescriptorSet.FromString(Path(described.name).read_bytes()).file
    for file in files:
        path = target / Path(file.name).with_suffix("")
        path.with_name(f"{path.name}_pb2_grpc.pyi").write_text(_types(file), encoding="utf-8")
    return [FOLDER / f"{name}{end}" for name in NAMES for end in ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")]


def _types(file: FileDescriptorProto) -> str:
    """Write the types of a file's clients and servers, for the asynchronous API."""
    messages = f"{Path(file.name).stem}_pb2"
    lines = [
        "from grpc import aio as _aio",
        "",
        f"from {'.'.join(FOLDER.parts)} import {messages} as _messages",
    ]
    for service in file.service:
        lines += ["", *_types_of_service(service)]
    return "\n".join(lines) + "\n"


def _types_of_service(service: ServiceDescriptorProto) -> list[str]:
    methods = [
        (method.name, *(f"_messages.{type_.rpartition('.')[2]}" for type_ in (method.input_type, method.output_type)))
        for method in service.method
    ]
    return [
        f"class {service.name}Stub:",
        *(f"    {name}: _aio.UnaryUnaryMultiCallable[{asked}, {answered}]" for name, asked, answered in methods),
        "    def __init__(self, channel: _aio.Channel) -> None: ...",
        "",
        f"class {service.name}Servicer:",
        *(
            f"    async def {name}(self, request: {asked}, context: _aio.ServicerContext[{asked}, {answered}]) -> {answered}: ..."
            for name, asked, answered in methods
        ),
        "",
        f"def add_{service.name}Servicer_to_server(servicer: {service.name}Servicer, server: _aio.Server) -> None: ...",
    ]


if __name__ == "__main__":
    for written in generate(SOURCE):
        print(f"src/{written}")
