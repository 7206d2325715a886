"""compose.yaml and Dockerfile say what is true: names of settings, of services and of files."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from firebox.settings.settings import load_settings
from firebox.settings.settings_table import TABLE

SECRETS = {"FIREBOX_DATABASE_PASSWORD": "word", "FIREBOX_ADMIN_TOKEN": "token"}


@pytest.fixture
def compose(checkout: Path) -> Any:
    return yaml.safe_load((checkout / "compose.yaml").read_text())


def filled_in(value: str) -> str:
    """Put in what the user is asked to choose."""
    return re.sub(r"\$\{(\w+)(:\?[^}]*)?\}", lambda found: SECRETS[found[1]], value)


def environment(compose: Any) -> dict[str, str]:
    return {name: filled_in(value) for name, value in compose["services"]["firebox"]["environment"].items()}


def test_every_variable_is_a_setting_with_an_allowed_value(compose: Any) -> None:
    given = environment(compose)
    assert set(given) <= {row.variable for row in TABLE}
    settings = load_settings({}, None, given)
    assert settings.warnings == ()
    assert settings.admin_token == "token"


def test_addresses_lead_to_services_of_the_file(compose: Any) -> None:
    given, services = environment(compose), compose["services"]
    for variable in ("FIREBOX_DATABASE_URL", "FIREBOX_REDIS_URL"):
        assert urlsplit(given[variable]).hostname in services
    assert set(services["firebox"]["depends_on"]) == set(services) - {"firebox"}
    database, own = urlsplit(given["FIREBOX_DATABASE_URL"]), services["postgres"]["environment"]
    assert (database.username, database.path) == (own["POSTGRES_USER"], f"/{own['POSTGRES_DB']}")
    assert database.password == filled_in(own["POSTGRES_PASSWORD"])


def test_ports_are_those_that_are_served_and_of_this_machine_alone(compose: Any) -> None:
    given = environment(compose)
    served = {given["FIREBOX_PORT"], given["FIREBOX_GRPC_PORT"]}
    for service in compose["services"].values():
        for port in service.get("ports", []):
            address, _, inside = port.split(":")
            assert address == "127.0.0.1"
            assert inside in served


def test_volumes_are_declared_and_the_image_keeps_its_data_there(compose: Any, checkout: Path) -> None:
    used = {volume.partition(":")[0] for service in compose["services"].values() for volume in service.get("volumes", [])}
    assert used == set(compose["volumes"])
    assert "firebox:/var/lib/firebox" in compose["services"]["firebox"]["volumes"]
    assert "VOLUME /var/lib/firebox" in (checkout / "Dockerfile").read_text()


def test_the_image_is_made_of_files_that_exist_and_reach_it(checkout: Path) -> None:
    ignored = (checkout / ".dockerignore").read_text().splitlines()
    text = (checkout / "Dockerfile").read_text()
    copied = [name for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for name in shlex.split(line)]
    assert copied
    for name in copied:
        assert (checkout / name).exists()
        assert f"!{name}" in ignored
    constraints = [
        line for line in (checkout / "requirements-dev.lock").read_text().splitlines() if re.match(r"[a-z0-9-]+==", line)
    ]
    for needed in ("asyncpg", "redis", "litestar"):
        assert any(line.startswith(f"{needed}==") for line in constraints)
