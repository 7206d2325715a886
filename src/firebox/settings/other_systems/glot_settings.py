"""glot-run's environment names, read as our settings.

All of them are without a prefix. `DATA_PATH` and `LOG_PATH` are names that other programs use too, and the first decides where
everything is kept: they count only beside a name that is glot-run's alone. glot-run itself does not start unless all are set.
"""

from __future__ import annotations

from collections.abc import Mapping

from firebox.settings.other_systems.result import Found, no_effect

SYSTEM = "glot-run"

NAMES: Mapping[str, str] = {
    "API_HTTP_LISTEN_IP": "host",
    "API_HTTP_LISTEN_PORT": "port",
    "DATA_PATH": "data_dir",
    "BASE_URL": "base_url",
    "ADMIN_TOKEN": "admin_token",
    "DOCKER_API_URL": "docker_url",
    "DOCKER_RUN_TIMEOUT": "docker_run_timeout_ms",
    "MAX_OUTPUT_SIZE": "glot_output_bytes",
}
_ITS_ALONE = {"API_ENVIRONMENT", "API_HTTP_LISTEN_IP", "API_HTTP_LISTEN_PORT", "DOCKER_API_URL", "DOCKER_RUN_TIMEOUT"}
_WITHOUT_EFFECT = {
    "API_ENVIRONMENT": "nothing is compiled anew while the server runs",
    "LOG_PATH": "the log goes to standard error",
}


def read_environment(environ: Mapping[str, str]) -> Found:
    """Translate the names of glot-run that are set. Empty values count as not set."""
    found = Found()
    sure = any(environ.get(name) for name in _ITS_ALONE)
    for variable, setting in NAMES.items():
        value = environ.get(variable)
        if value and (sure or variable != "DATA_PATH"):
            found.values[setting] = (_translate(variable, value), variable)
    found.warnings.extend(no_effect(name, why) for name, why in _WITHOUT_EFFECT.items() if sure and environ.get(name))
    return found


def _translate(variable: str, value: str) -> str:
    match variable:
        case "DOCKER_RUN_TIMEOUT":
            return f"{value.strip()}s" if value.strip().isdecimal() else value
        case "DOCKER_API_URL" if value.startswith("http://"):
            # The reference speaks of the engine's API as of any HTTP service.
            return "tcp://" + value.removeprefix("http://").rstrip("/")
        case _:
            return value
