"""`firebox packages`: languages that are installed by name, from signed repositories; a module for each story."""

from __future__ import annotations

from collections.abc import Callable

from firebox.cli.application import Application
from firebox.cli.packages.apply_command import apply
from firebox.cli.packages.build_command import build
from firebox.cli.packages.bundle_commands import export_packages, import_packages
from firebox.cli.packages.install_command import install
from firebox.cli.packages.keygen_command import keygen
from firebox.cli.packages.list_commands import info, list_packages, search
from firebox.cli.packages.publish_commands import index, publish, sign
from firebox.cli.packages.recipes_command import recipes
from firebox.cli.packages.repository_commands import repos, sync
from firebox.cli.packages.trust_commands import trust, untrust
from firebox.cli.packages.uninstall_command import uninstall

app = Application(no_args_is_help=True)


@app.callback()
def package_commands() -> None:
    """Install, build and publish languages.

    A package holds a language with everything it needs and runs the same on every host: `firebox packages install python`.
    Packages come from the repositories of the settings; a server that runs offers them as soon as they are installed.
    docs/operate/packages.md tells more.
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
