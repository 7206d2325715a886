"""`firebox images`: container images for the glot-run and grounds-exec contracts."""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TransferSpeedColumn

from firebox.cli.application import Application
from firebox.cli.completion import offer_languages
from firebox.cli.image_building.contract import CONTRACTS, Contract
from firebox.cli.image_building.debian_image import build_root
from firebox.cli.image_building.image_import import Image, open_engine
from firebox.cli.options import ConfigFile, DataDir
from firebox.cli.packages.output_tables import print_rows
from firebox.domain.errors import InvalidRequest, UnknownRuntime
from firebox.runtimes.install_hints import named
from firebox.server.logs import set_up_logs
from firebox.service.available_runtimes import find_definitions
from firebox.settings.settings import Settings, load_settings

DEFAULT_SUITE = "bookworm"
_TAG = re.compile(r"[a-z0-9]+(?:(?:[._/-]|__)[a-z0-9]+)*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?")
_SUITE = re.compile(r"[a-z]+")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")

app = Application(no_args_is_help=True)

DockerUrl = Annotated[
    str | None, typer.Option("--docker-url", metavar="URL", help="URL of the container engine. Default: the setting docker_url.")
]


@app.command()
def build(
    language: Annotated[str, typer.Argument(help="A language, by name or alias.", autocompletion=offer_languages)],
    contract: Annotated[str, typer.Option("--contract", metavar="|".join(CONTRACTS), help="The contract of the image.")] = "glot",
    suite: Annotated[
        str | None, typer.Option("--suite", metavar="NAME", help="Debian release. Default: bookworm, if it has the language.")
    ] = None,
    package: Annotated[
        list[str] | None, typer.Option("--package", metavar="NAME", help="An additional Debian package; repeatable.")
    ] = None,
    tag: Annotated[str | None, typer.Option("--tag", metavar="NAME:TAG", help="Name of the image.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the root as a tar instead of importing it.")
    ] = None,
    docker_url: DockerUrl = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Build a container image for one language from Debian packages, and import it into the container engine.

    Example: `firebox images build python --contract glot`.
    """
    settings = load_settings({"docker_url": docker_url, "data_dir": data_dir}, config)
    set_up_logs("error", settings.log_format)
    if contract not in CONTRACTS:
        raise InvalidRequest(f"{contract!r} is not a contract", where="--contract", hint="one of " + ", ".join(CONTRACTS))
    kept = CONTRACTS[contract]
    language = language.strip().lower()
    release, packages = _debian_packages(language, suite, package or [], settings)
    name = _tag(tag or kept.tag(language))
    if output is None:
        asyncio.run(_ping(_url(settings)))  # fail before a build that takes minutes
    with tempfile.TemporaryDirectory(prefix="firebox-image-") as folder:
        root = Path(folder, "root.tar") if output is None else output
        with _progress() as progress:
            task = progress.add_task("Debian root", total=None)

            def said(line: str) -> None:
                progress.update(task, description=f"Debian root: {line[:70]}")

            build_root(language, release, packages, root, said)
            progress.update(task, description="Debian root", total=1, completed=1)
        if output is not None:
            typer.echo(f"{output}: {output.stat().st_size} bytes; to import it, use these options:")
            typer.echo("\n".join(f"  --change '{change}'" for change in kept.changes(language)))
            return
        identifier = asyncio.run(import_root(_url(settings), root, name, kept, language))
    typer.echo(f"{name} {identifier}")


@app.command(name="list")
def list_images(docker_url: DockerUrl = None, config: ConfigFile = None, data_dir: DataDir = None) -> None:
    """List the images in the container engine that `firebox images build` built."""
    settings = load_settings({"docker_url": docker_url, "data_dir": data_dir}, config)

    async def ask() -> list[tuple[str, ...]]:
        async with open_engine(_url(settings)) as engine:
            found = await engine.images()
        return [_row(image, tag) for image in sorted(found, key=lambda each: each.tags) for tag in image.tags or ("<none>",)]

    print_rows(("IMAGE", "CONTRACT", "LANGUAGE", "SIZE", "CREATED"), asyncio.run(ask()))


def _row(image: Image, tag: str) -> tuple[str, ...]:
    created = f"{datetime.fromtimestamp(image.created, UTC):%F %T}Z"
    return tag, image.contract, image.language, f"{image.size_bytes / 1e6:.0f} MB", created


async def import_root(url: str, root: Path, tag: str, contract: Contract, language: str) -> str:
    """Import a root as an image and return its id. Raises: PartUnavailable, ContainerError."""
    with _progress() as progress:
        task = progress.add_task(f"importing {tag}", total=root.stat().st_size)  # noqa: ASYNC240 - a quick local stat
        async with open_engine(url) as engine:
            return await engine.take(root, tag, contract.changes(language), lambda sent: progress.advance(task, sent))


async def _ping(url: str) -> None:
    async with open_engine(url) as engine:
        await engine.ping()


def _debian_packages(language: str, suite: str | None, more: list[str], settings: Settings) -> tuple[str, list[str]]:
    """Return the Debian release and the packages of a language. Raises: UnknownRuntime, InvalidRequest."""
    definitions = named(find_definitions(settings), language)
    if not definitions:
        raise UnknownRuntime(language, "*", hint="see docs/develop/add-a-language.md to add one")
    chosen = next((each.packages for each in definitions if each.packages.debian), definitions[0].packages)
    if not chosen.debian and not more:
        hint = chosen.words() or "add packages with --package"
        raise InvalidRequest(f"no Debian package provides {language}", where="LANGUAGE", hint=hint)
    release = suite or chosen.suite or DEFAULT_SUITE
    if not _SUITE.fullmatch(release):
        raise InvalidRequest(f"{release!r} is not a valid Debian release", where="--suite")
    for package in more:
        if not _PACKAGE.fullmatch(package):
            raise InvalidRequest(f"{package!r} is not a valid Debian package name", where="--package")
    return release, [*chosen.debian, *more]


def _tag(word: str) -> str:
    """Validate and normalize an image name. Source: Docker's reference grammar, "path-component" and "tag"."""
    plain = word.replace("+", "plus").replace("#", "sharp")
    if not _TAG.fullmatch(plain):
        raise InvalidRequest(f"{word!r} is not a valid image name", where="--tag", hint="example: glot/python:latest")
    return plain if ":" in plain else f"{plain}:latest"


def _url(settings: Settings) -> str:
    if not settings.docker_url:
        hint = "use --docker-url unix:///run/docker.sock, or --output FILE to only write the root"
        raise InvalidRequest("no container engine is configured", where="--docker-url", hint=hint)
    return settings.docker_url


def _progress() -> Progress:
    """Create progress bars that are only shown on a terminal."""
    bars = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    console = Console(stderr=True)
    return Progress(*bars, TimeElapsedColumn(), console=console, disable=not sys.stderr.isatty(), transient=True)
