"""`firebox doctor`: checks host support."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict

import typer

from firebox.cli.application import Application
from firebox.cli.options import ConfigFile, DataDir
from firebox.cli.readiness import measure_readiness
from firebox.sandbox.launcher.host_support import Finding, describe_plan, examine
from firebox.sandbox.spec import SandboxFailure
from firebox.server.logs import set_up_logs
from firebox.settings.settings import load_settings

EXIT_BOUNDARY_MISSING = 1

app = Application()


@app.command()
def examine_host(
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
    plan: bool = typer.Option(False, "--plan", help="Only print how a sandbox is created here, step by step."),
) -> None:
    """Check host support for every isolation layer and suggest fixes. Also measures the cost of idle sandboxes.

    Exit status: 0 if all layers required for a public server are available, otherwise 1.
    """
    settings = load_settings({"data_dir": data_dir}, config)
    set_up_logs("error", "text")
    if plan:
        try:
            print("\n".join(asyncio.run(describe_plan())))
        except SandboxFailure as failure:
            print(f"cannot create a sandbox here: {failure}\n{failure.hint}".rstrip())
            raise typer.Exit(EXIT_BOUNDARY_MISSING) from None
        return
    findings = [*asyncio.run(examine()), *measure_readiness(settings)]
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(_line(finding))
    if any(finding.boundary and not finding.ok for finding in findings):
        raise typer.Exit(EXIT_BOUNDARY_MISSING)


def _line(finding: Finding) -> str:
    mark = "ok" if finding.ok else "MISSING" if finding.boundary else "absent"
    line = f"{mark:<8} {finding.name:<20} {finding.detail}"
    return f"{line}\n{'':<30}fix: {finding.hint}" if finding.hint and not finding.ok else line
