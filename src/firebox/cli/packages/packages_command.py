"""`firebox packages`: the command group."""

from __future__ import annotations

from collections.abc import Callable

from firebox.cli.application import Application
from firebox.cli.packages.apply_command import apply
from firebox.cli.packages.build_command import build
from firebox.cli.packages.bundle_commands import export_packages, import_packages
from firebox.cli.packages.install_command import install, uninstall
from firebox.cli.packages.list_commands import info, list_packages, search
from firebox.cli.packages.publish_commands import index, keygen, publish, sign
from firebox.cli.packages.recipes_command import recipes
from firebox.cli.packages.repository_commands import repos, sync, trust, untrust

app = Application(no_args_is_help=True)


@app.callback()
def package_commands() -> None:
    """Install, build and publish languages.

    A package contains a language with all its dependencies and runs the same on every host: `firebox packages install python`.
    Packages come from the configured repositories, and a running server offers them as soon as they are installed.
    See docs/operate/packages.md.
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
    "Repositories": {"repos": repos, "sync": sync, "trust": trust, "untrust": untrust},
    "Making packages": {"recipes": recipes, "build": build, "index": index, "keygen": keygen, "sign": sign, "publish": publish},
    "Offline machines": {"export": export_packages, "import": import_packages},
}
"""All commands by name, grouped by their heading in `firebox packages --help`."""

for heading, commands in GROUPS.items():
    for name, command in commands.items():
        app.command(name, rich_help_panel=heading)(command)
