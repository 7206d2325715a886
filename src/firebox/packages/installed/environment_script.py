"""The `environment` file of a Piston package: a shell script that is evaluated once, in a sandbox, at installation.

A package's own script runs first, then those of its dependencies, depth first. The exported variables become its environment.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from firebox.domain.errors import SandboxError, UnusablePackage
from firebox.packages.installed.metadata import check_environment
from firebox.runtimes.runtime import BASE_ENVIRONMENT
from firebox.sandbox.launcher.launcher_process import LauncherProcess
from firebox.sandbox.spec import Command, CommandRefused, SandboxFailure, SandboxSpec

_OF_THE_SHELL = {"PWD", "OLDPWD", "SHLVL", "_"}
_SCRIPT = """\
exec 3>&1 1>&2 </dev/null
firebox_env=$(command -v env)
for firebox_place do
    [ -f "$firebox_place/environment" ] || continue
    cd "$firebox_place" && . ./environment
done
exec "$firebox_env" -0 >&3 3>&-
"""
_WALL_MS = 30_000
_OUTPUT_BYTES = 1 << 20
_LAST_WORDS = 400


async def evaluate(name: str, *, homes: Sequence[str], layers: Sequence[str], on_host: bool, uid_base: int) -> dict[str, str]:
    """Run the environment scripts of a package and its dependencies, and return the variables they export.

    homes: package folders as seen in the sandbox, own first. layers: layers of the sandbox root, topmost first.
    Raises: UnusablePackage if a script fails; SandboxError if no sandbox can be created.
    """
    command = Command(
        argv=("bash", "-c", _SCRIPT, "bash", *homes),
        env=BASE_ENVIRONMENT,
        wall_ms=_WALL_MS,
        cpu_ms=_WALL_MS,
        output_bytes=_OUTPUT_BYTES,
        kill_on_output=True,
    )
    launcher = LauncherProcess(uid_base=uid_base)
    try:
        await launcher.start()
        with closing(await launcher.make(SandboxSpec(layers=tuple(layers), host=on_host))) as sandbox:
            ended, output, complaints = await sandbox.run(command)
    except CommandRefused as refused:
        hint = "bash and env must be installed on this machine" if on_host else ""
        raise UnusablePackage(f"{name}: its environment cannot be evaluated: {refused}", hint=hint) from None
    except SandboxFailure as failure:
        hint = failure.hint or "run `firebox doctor`"
        raise SandboxError(failure.step, failure.errno, detail=failure.detail, hint=hint) from None
    finally:
        await launcher.close()
    if ended.status != 0 or ended.stdout_truncated:
        words = complaints.decode(errors="replace").strip()[-_LAST_WORDS:]
        how = ended.killed_by.replace("_", " ") or f"status {ended.status}, signal {ended.signal}"
        raise UnusablePackage(f"{name}: its environment cannot be evaluated ({how}): {words}")
    return _variables(name, output)


def _variables(name: str, output: bytes) -> dict[str, str]:
    """Parse the output of `env -0`, without the variables that the shell or the base environment set."""
    variables: dict[str, str] = {}
    for item in output.decode("utf-8", errors="replace").split("\0"):
        variable, equals, value = item.partition("=")
        # bash exports functions under names that are not valid variables.
        is_own = variable in _OF_THE_SHELL or variable.startswith("BASH_FUNC_") or BASE_ENVIRONMENT.get(variable) == value
        if equals and not is_own:
            variables[variable] = value
    check_environment(variables, f"{name}: environment")
    return variables
