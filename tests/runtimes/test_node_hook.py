"""Node's hook in a template: without reseeded random numbers there is no template."""

from __future__ import annotations

import pytest

from firebox.runtimes.prestart import hook_texts, plan_ahead
from firebox.runtimes.runtime import Runtime
from firebox.sandbox.launcher.launcher_process import LauncherProcess
from firebox.sandbox.pool.templates import ARE_POSSIBLE, make_template
from firebox.sandbox.spec import Prestart, SandboxFailure, SandboxSpec
from tests.conftest import require_tool

pytestmark = pytest.mark.skipif(not ARE_POSSIBLE, reason="templates are for x86-64")


def planned(*modules: str) -> Prestart:
    runtime = Runtime(language="node", version="1.0.0", main_name="main.js", run=(require_tool("node"), "{main}"), ahead="node")
    ahead = plan_ahead(runtime, runtime.run_command(["main.js"], (), 0), (), {"PATH": "/usr/bin:/bin"}, modules, template="")
    assert ahead is not None
    return ahead


async def make(ahead: Prestart, text: str = "", other: str = "") -> None:
    """Create a template with a hook in which one text is replaced."""
    hooks = hook_texts()
    assert text in hooks["wait.js"]
    hooks["wait.js"] = hooks["wait.js"].replace(text, other) if text else hooks["wait.js"]
    launcher = LauncherProcess(hooks=hooks)
    await launcher.start()
    try:
        assert not (await make_template(SandboxSpec(prestart=ahead), launcher.make, 0.0)).failed
    finally:
        await launcher.close()


async def test_there_is_a_template() -> None:
    await make(planned())


@pytest.mark.parametrize(
    ("text", "other", "reason"),
    [
        ("/^3\\./", "/^never/", r"OpenSSL \d.* is not known to seed itself anew"),
        ("one << 23n", "one << 22n", "the state of Math.random.* is nowhere to be found"),
        ("fs.writeFileSync", "String", "restored programs draw the same random numbers"),
    ],
    ids=["OpenSSL", "V8", "not filled in"],
)
async def test_there_is_none_where_a_generator_is_not_the_one_that_is_known(text: str, other: str, reason: str) -> None:
    with pytest.raises(SandboxFailure, match=reason):
        await make(planned(), text, other)


async def test_there_is_none_when_openssl_would_go_on_with_its_seed() -> None:
    captured_as_it_is = ("pid !== process.pid", "true")
    with pytest.raises(SandboxFailure, match="restored programs draw the same random numbers"):
        await make(planned()._replace(other_pid=False), *captured_as_it_is)


async def test_there_is_none_of_modules_that_may_have_drawn() -> None:
    with pytest.raises(SandboxFailure, match="modules that were loaded may have drawn random numbers"):
        await make(planned("fs/promises"))
