"""`firebox users`: works on the database of the settings, without a server."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from pathlib import Path

import pytest

from tests.accounts.people import People


def database(people: People) -> Path:
    return Path(people.database_url.removeprefix("sqlite:///"))


def test_a_token_is_shown_once_and_never_stored(people: People) -> None:
    done = people.command("add", "ann")
    assert done.returncode == 0
    token = done.stdout.strip()
    assert len(token) == 43
    assert "ann" in done.stderr
    assert token not in done.stderr
    for arguments in (("list",), ("list", "--json"), ("disable", "ann"), ("enable", "ann"), ("limits", "ann", "--json")):
        shown = people.command(*arguments)
        assert shown.returncode == 0
        assert token not in shown.stdout + shown.stderr
    with sqlite3.connect(database(people)) as connection:
        (kept,) = connection.execute("SELECT token_sha256 FROM firebox_users").fetchone()
    connection.close()
    assert kept == hashlib.sha256(token.encode()).digest()
    assert not [path for path in database(people).parent.glob("accounts.db*") if token.encode() in path.read_bytes()]


def test_users_are_listed_changed_and_removed(people: People) -> None:
    people.add("ann", "--role", "admin", "--runs-per-minute", "5", "--cpu-seconds-per-day", "0")
    people.add("[bold]bob")
    ann, bob = people.ask("list")
    assert (ann["name"], ann["role"], ann["runs_per_minute"], ann["concurrent_runs"], ann["cpu_seconds_per_day"]) == (
        "ann", "admin", 5, None, 0,
    )  # fmt: skip
    assert ann["token_hint"] == people.tokens["ann"][-4:]
    assert (bob["name"], bob["role"], bob["disabled"]) == ("[bold]bob", "user", False)
    changed = people.ask("limits", "ann", "--runs-per-minute", "default", "--concurrent-runs", "2")
    assert (changed["runs_per_minute"], changed["concurrent_runs"], changed["cpu_seconds_per_day"]) == (None, 2, 0)
    assert people.ask("disable", "ann")["disabled"] is True
    assert people.ask("enable", "ann")["disabled"] is False
    table = people.command("list").stdout
    assert "[bold]bob" in table
    assert people.command("remove", "ann").returncode == 0
    assert [user["name"] for user in people.ask("list")] == ["[bold]bob"]


def test_a_new_token_replaces_the_old_one(people: People) -> None:
    old = people.add("ann")
    new = people.ask("token", "ann")
    assert new["token"] != old
    assert new["token_hint"] == new["token"][-4:]


@pytest.mark.parametrize("from_file", [True, False])
def test_a_chosen_token_comes_from_a_file_or_standard_input(people: People, tmp_path: Path, from_file: bool) -> None:
    chosen = "a-token-from-another-system"
    file = tmp_path / "token"
    file.write_text(chosen + "\n")
    done = people.command("add", "ann", "--json", "--token-file", str(file) if from_file else "-", stdin=chosen + "\n")
    assert json.loads(done.stdout)["token"] == chosen
    assert people.command("add", "bob", "--token-file", str(file)).returncode == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("add", ""), "name"),
        (("add", "a\x1b[2Jb"), "name"),
        (("add", "ann", "--role", "king"), "king"),
        (("add", "ann", "--runs-per-minute", "-1"), "-1"),
        (("add", "ann", "--runs-per-minute", "1e308"), "1e308"),
        (("add", "ann", "--concurrent-runs", "NaN"), "NaN"),
        (("add", "ann", "--cpu-seconds-per-day", "9" * 30), "999"),
        (("add", "ann", "--token-file", "/nowhere"), "/nowhere"),
        (("limits", "ann", "--runs-per-minute", "many"), "many"),
        (("token", "nobody"), "nobody"),
        (("disable", "nobody"), "nobody"),
        (("limits", "nobody"), "nobody"),
        (("remove", "nobody"), "nobody"),
    ],
)
def test_invalid_input_is_reported_in_one_sentence(people: People, arguments: tuple[str, ...], words: str) -> None:
    done = people.command(*arguments)
    assert done.returncode in {2, 125}
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert people.ask("list") == []


def test_a_name_is_taken_once(people: People) -> None:
    people.add("ann")
    done = people.command("add", "ann")
    assert done.returncode == 2
    assert "taken" in done.stderr
