"""The same program through every door has the same outcome, as far as the protocols can report it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from tests.conftest import require_tool
from tests.doors.doors import ADMIN_TOKEN, DOORS, Door
from tests.doors.outcome import Program
from tests.doors.programs import OUTPUT_LIMIT_BYTES, PROGRAMS
from tests.support.server import RunningServer, running_server

TABLE = [(program, door) for program in PROGRAMS for door in DOORS if program.needs <= door.takes]


def limits(wall: str) -> dict[str, str]:
    """The settings that give a program the same limits through every door."""
    wall_clocks = ("RUN_WALL_MS", "INTERACTIVE_WALL_MS", "DOCKER_RUN_TIMEOUT_MS", "GROUNDS_WALL_MS", "RUNNER_TIMEOUT_MS")
    cpu_clocks = ("RUN_CPU_MS", "INTERACTIVE_CPU_MS")
    return {
        **{f"FIREBOX_{clock}": wall for clock in wall_clocks + cpu_clocks},
        "FIREBOX_RUN_OUTPUT_BYTES": str(OUTPUT_LIMIT_BYTES),
        "FIREBOX_GLOT_OUTPUT_BYTES": str(OUTPUT_LIMIT_BYTES),
        "FIREBOX_RUN_OUTPUT_MODE": "kill",
        "FIREBOX_ADMIN_TOKEN": ADMIN_TOKEN,
    }


PATIENT, IMPATIENT = limits("30s"), limits("600ms")


@pytest.fixture(scope="module")
def patient() -> Iterator[tuple[RunningServer, Mapping[str, str]]]:
    with running_server("--grpc-port", "0", "--slots", "2", env=PATIENT) as started:
        yield started, PATIENT


@pytest.fixture(scope="module")
def impatient() -> Iterator[tuple[RunningServer, Mapping[str, str]]]:
    with running_server("--grpc-port", "0", "--slots", "2", env=IMPATIENT) as started:
        yield started, IMPATIENT


@pytest.mark.parametrize(
    ("program", "door"), TABLE, ids=[f"{program.name.replace(' ', '-')}-{door.name}" for program, door in TABLE]
)
def test_the_same_outcome_through_every_door(request: pytest.FixtureRequest, program: Program, door: type[Door]) -> None:
    require_tool(program.tool)
    server, settings = request.getfixturevalue("impatient" if program.outcome.ending == "too slow" else "patient")
    way = door(server, settings)
    outcome, expected = way.run(program), way.expected(program.outcome)
    assert outcome.ending == expected.ending
    for name in ("stdout", "stderr", "exit_code"):
        wanted, got = getattr(expected, name), getattr(outcome, name)
        assert wanted is None or got == wanted, name
