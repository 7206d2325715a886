"""Write the Python code of the protocol files in src/firebox/doors/runner/proto anew. A test checks that it is up to date.

The package needs the messages only; clients and servers are for tests. grpcio-tools writes all of these but the types of clients
and servers.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import grpc_tools
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet, ServiceDescriptorProto
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path("firebox/doors/runner/proto")
"""Relative to `src`: the generated modules import the messages by the names they have in the package."""
STUBS = Path("tests/runner/stubs")
NAMES = ("auth", "runner")


def generate(target: Path) -> list[Path]:
    """Write the modules below `target`, in the folders of the repository. Return their paths, relative to it."""
    source, stubs = target / "src", target / STUBS
    source.mkdir(exist_ok=True)
    stubs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        described = folder / "described"
        arguments = [
            "protoc",
            f"--proto_path={ROOT / 'src'}",
            f"--proto_path={Path(grpc_tools.__file__).parent / '_proto'}",
            f"--python_out={source}",
            f"--pyi_out={source}",
            f"--grpc_python_out={folder}",
            f"--descriptor_set_out={described}",
            *(str(PACKAGE / f"{name}.proto") for name in NAMES),
        ]
        if protoc.main(arguments):
            sys.exit("protoc did not take the protocol files")
        for file in FileDescriptorSet.FromString(described.read_bytes()).file:
            module = f"{Path(file.name).stem}_pb2_grpc"
            shutil.copyfile(folder / PACKAGE / f"{module}.py", stubs / f"{module}.py")
            (stubs / f"{module}.pyi").write_text(_types(file), encoding="utf-8")
    messages = [Path("src") / PACKAGE / f"{name}_pb2.{end}" for name in NAMES for end in ("py", "pyi")]
    return messages + [STUBS / f"{name}_pb2_grpc.{end}" for name in NAMES for end in ("py", "pyi")]


def _types(file: FileDescriptorProto) -> str:
    """Write the types of a file's clients and servers, for the asynchronous API."""
    messages = f"{Path(file.name).stem}_pb2"
    lines = [
        "from grpc import aio as _aio",
        "",
        f"from {'.'.join(PACKAGE.parts)} import {messages} as _messages",
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
    for written in generate(ROOT):
        print(written)
