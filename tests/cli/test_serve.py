"""`firebox serve`: its ready line, addresses and log."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from firebox.domain.errors import SettingsError
from firebox.doors.http.listening_socket import is_loopback, open_listener, url_of
from firebox.settings.settings import load_settings
from tests.support.server import RunningServer, run_firebox


def refuse(*flags: str, env: dict[str, str] | None = None) -> str:
    """Run a server that must refuse to start. Return its output."""
    done = run_firebox("serve", *flags, env=env)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


def test_prints_one_line_when_it_answers(server: RunningServer) -> None:
    assert set(server.ready) == {"event", "url", "pid", "runtimes", "isolation"}
    assert server.ready["event"] == "ready"
    assert server.ready["pid"] == server.process.pid
    assert server.ready["runtimes"] >= 1
    assert "seccomp" in server.ready["isolation"]
    assert not server.url.endswith(":0")
    assert httpx.get(f"{server.url}/api/v1/health", trust_env=False).status_code == 200


@pytest.mark.parametrize("signal_name", ["SIGTERM", "SIGINT"])
def test_stops_on_sigterm(start_server: Callable[..., RunningServer], signal_name: str) -> None:
    import signal

    server = start_server()
    server.process.send_signal(signal.Signals[signal_name])
    assert server.process.wait(timeout=60) == 0
    assert "Traceback" not in server.log.read_text()
    with pytest.raises(OSError):
        server.connect()


def test_other_names_of_this_machine_are_served(start_server: Callable[..., RunningServer]) -> None:
    server = start_server("--host", "localhost")
    assert httpx.get(f"{server.url}/api/v1/health", trust_env=False).status_code == 200


@pytest.mark.parametrize(
    ("flags", "env"),
    [
        (("--host", "0.0.0.0"), {}),
        (("--host", "::"), {}),
        ((), {"FIREBOX_HOST": "0.0.0.0"}),
        ((), {"PISTON_BIND_ADDRESS": "0.0.0.0:2000"}),
    ],
)
def test_a_public_address_must_be_allowed(flags: tuple[str, ...], env: dict[str, str]) -> None:
    words = refuse("--port", "0", *flags, env=env)
    assert "host" in words
    assert "allow_public" in words
    for variable in env:
        assert variable in words


def test_a_public_address_that_is_allowed_is_served(start_server: Callable[..., RunningServer]) -> None:
    if not is_public_allowed_here():
        pytest.skip("this host lacks a layer of the boundary")
    server = start_server("--host", "0.0.0.0", "--allow-public")
    assert server.url.startswith("http://127.0.0.1:")
    assert httpx.get(f"{server.url}/api/v1/health", trust_env=False).status_code == 200


def is_public_allowed_here() -> bool:
    return run_firebox("doctor").returncode == 0


def test_a_taken_port_is_a_settings_error(server: RunningServer) -> None:
    words = refuse("--port", str(server.address[1]))
    assert "Address already in use" in words


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--port", "x"), "port"),
        (("--port", "99999"), "65535"),
        (("--host", "no.such.name.invalid"), "host"),
        (("--run-wall-ms", "soon"), "run_wall_ms"),
        (("--config", "/nonexistent.toml"), "/nonexistent.toml"),
    ],
)
def test_invalid_settings_are_reported(flags: tuple[str, ...], words: str) -> None:
    assert words in refuse(*flags)


def test_settings_come_from_a_file_too(start_server: Callable[..., RunningServer], tmp_path: Path) -> None:
    config = tmp_path / "firebox.toml"
    config.write_text('run_wall_ms = "123ms"\nlog_format = "json"\n')
    server = start_server("--config", str(config))
    with server.client() as client:
        result = client.post("/runs", json={"language": "bash", "code": "sleep 9"}).json()
    assert result["verdict"] == "wall_time"
    assert all(json.loads(line)["level"] for line in server.log.read_text().splitlines())


def test_toolchains_that_stay_slow_are_in_the_log_and_in_the_metrics(
    start_server: Callable[..., RunningServer], tmp_path: Path
) -> None:
    (tmp_path / "runtimes").mkdir()
    tmp_path.joinpath("runtimes", "lame.toml").write_text("""
language = "lame"
extensions = [".lame"]
main_name = "main.lame"
run = ["{tool}", "{prepared}"]
prepare = [["true"]]

[detect]
programs = ["true"]
""")
    (tmp_path / "prepared").write_text("a file where the folder would be")
    server = start_server("--prepare-toolchains", "--data-dir", str(tmp_path))
    with server.client() as client:
        numbers = client.get("/metrics").text
    assert re.search(r'^firebox_slow_toolchains\{language="lame",version="[^"]+"\} 1\.0$', numbers, re.MULTILINE)
    assert re.search(r"toolchain not prepared.*lame", server.log.read_text())


def test_nothing_of_a_client_gets_into_the_log_but_that_it_called(start_server: Callable[..., RunningServer]) -> None:
    server = start_server("--log-level", "debug")
    with server.client() as client:
        client.post(
            "/runs", json={"language": "bash", "code": "echo secret-1; exit 1", "stdin": "secret-2", "args": ["secret-3"]}
        )
        client.post("/runs", json={"language": "evil\n2026 info forged", "code": "secret-4", "env": {"A": "secret-5"}})
        client.post("/runs", json={"language": "bash", "code": "secret-6", "version": "\x1b[31m\nforged"})
        client.get("/runs/%0aforged")
        client.post("/runs", content='{"secret-7": \n', headers={"content-type": "application/json"})
    server.stop()
    log = server.log.read_text()
    assert "run ended" in log
    assert "secret" not in log
    assert "forged" not in log
    assert "\x1b" not in log


def test_pages_of_named_sites_may_call(start_server: Callable[..., RunningServer]) -> None:
    server = start_server("--cors-origins", "https://a.example, https://b.example/")
    with server.client() as client:
        for origin, allowed in (("https://a.example", True), ("https://b.example", True), ("https://c.example", False)):
            answer = client.get("/runtimes", headers={"Origin": origin})
            assert (answer.headers.get("access-control-allow-origin") == origin) == allowed


def test_pages_may_not_call_unless_named(server: RunningServer) -> None:
    answer = httpx.get(f"{server.url}/api/v1/runtimes", headers={"Origin": "https://a.example"}, trust_env=False)
    assert "access-control-allow-origin" not in answer.headers


def test_connections_are_bounded_in_silence_and_in_reading() -> None:
    with open_listener(load_settings({"port": 0}, None, {})) as listener:
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("host", ["127.0.0.2", "::1", "localhost"])
def test_addresses_of_this_machine_only_are_taken(host: str) -> None:
    if host == "::1" and not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("no IPv6 here")
    with open_listener(load_settings({"port": 0, "host": host}, None, {})) as listener:
        assert is_loopback(listener.getsockname()[0])


def test_an_unknown_host_name_is_rejected() -> None:
    with pytest.raises(SettingsError):
        open_listener(load_settings({"port": 0, "host": "999.1.1.1"}, None, {}))
