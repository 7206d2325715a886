"""`firebox packages`: languages that are installed by name, from signed repositories; a module for each story."""

from __future__ import annotations

from collections.abc import Callable

from firebox.cli.application import Application
from firebox.cli.package_commands.applying import apply
from firebox.cli.package_commands.building import build
from firebox.cli.package_commands.bundles import export_packages, import_packages
from firebox.cli.package_commands.installing import install
from firebox.cli.package_commands.keys import keygen
from firebox.cli.package_commands.listing import info, list_packages, search
from firebox.cli.package_commands.publishing import index, publish, sign
from firebox.cli.package_commands.recipes import recipes
from firebox.cli.package_commands.removing import uninstall
from firebox.cli.package_commands.repositories import repos, sync
from firebox.cli.package_commands.trust import trust, untrust

app = Application(no_args_is_help=True)


@app.callback()
def package_commands() -> None:
    """Install, build and publish languages.

    A package holds a language with everything it needs and runs the same on every host: `firebox packages install python`.
    Packages come from the repositories of the settings; a server that runs offers them as soon as they are installed.
    docs/packages.md tells more.
    """


GROUPS: dict[str, dict[str, Callable[..., None]]] = {
    "Packages": {
        "list": list_packages,
        "search": search,
        "info": info,
        "install": install,
        "uninstall": uninstall,
        "apply": apply,
    },
    "Repositories": {
        "repos": repos,
        "sync": sync,
        "trust": trust,
        "untrust": untrust,
    },
    "Making packages": {
        "recipes": recipes,
        "build": build,
        "index": index,
        "keygen": keygen,
        "sign": sign,
        "publish": publish,
    },
    "Without a network": {
        "export": export_packages,
        "import": import_packages,
    },
}
"""Every command by its name, under the heading that `firebox packages --help` puts it."""

for heading, commands in GROUPS.items():
    for name, command in commands.items():
        app.command(name, rich_help_panel=heading)(command)
