"""The page docs/reference/attacks.md: every attack by its number, with the tests that hold it, found by their names in tests/."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill

TESTS = Path(__file__).resolve().parent.parent / "tests"

HEAD = """\
# Attacks and their tests

<!-- Written by `make docs` from the names of the tests and from scripts/attacks_page.py: change it there. -->

Attacks by untrusted programs and hostile clients. Their numbers never change. A test is named after the attack it tries:
`pytest -k attack_58`. It carries out the attack, then checks for a clear status in bounded time and for leftovers.
"""

ATTACKS: dict[str, dict[int, str]] = {
    "Exhaustion": {
        1: "fork bomb",
        2: "thread bomb",
        3: "fork, setsid and ignored signals",
        4: "one job at its process limit blocks another",
        5: "zombies and orphans",
        6: "unbounded memory allocation",
        7: "many small processes that exceed the limit together",
        8: "memory as files in tmpfs and /dev/shm",
        9: "memory as pipes, sockets, memfd, System V segments",
        10: "page cache that must not get a small program killed",
        11: "swap as a way around the memory limit",
        12: "kernel memory: dentries, inotify, epoll, keyrings",
        13: "one huge file, fallocate, a sparse terabyte",
        14: "a million empty files",
        15: "folders nested ten thousand deep",
        16: "file names with newlines, dashes, invalid UTF-8",
        17: "every writable place filled up",
        18: "flood on standard output",
        19: "flood on standard error",
        20: "a flood on both at once",
        21: "more output than a pipe holds, then silence",
        22: "one byte a second, forever",
        23: "flood to a slow or disconnected client",
        24: "terminal escapes and markup in output",
        25: "busy loop",
        26: "endless sleep",
        27: "reading input that never ends",
        28: "SIGSTOP to itself and its group",
        29: "ignored SIGTERM and SIGXCPU",
        30: "closes its output and keeps running",
        31: "exits while a child keeps the output open",
    },
    "Compile stage": {
        32: "#include of /dev/zero, /dev/stdin, a pipe",
        33: "main[-1u]={1}",
        34: "initialised array of 500 MB",
        35: "exponential templates and constexpr",
        36: "macro expansion bomb",
        37: "megabytes of error messages",
        38: ".incbin and #include of files of the host and of other jobs",
        39: "code that runs in the compiler; plugins, wrappers, specs, response files",
        40: "a program or toolchain overwritten for the next run",
        41: "poisoned compile cache",
        42: "startup files and variables: .pth, sitecustomize, BASH_ENV, LD_PRELOAD, NODE_OPTIONS",
    },
    "Files in and out": {
        43: "names that leave the folder, clash or are unusual",
        44: "NUL in names, arguments, variables, input",
        45: "lone surrogates, invalid UTF-8, BOM, CRLF",
        46: "artifact that is a symlink to a host file",
        47: "symlinked parent folder",
        48: "hard link to a protected file",
        49: "artifact that is a pipe, socket or device",
        50: "file and symlink swapped during the copy",
        51: "file that grows during the read",
        52: "set-uid bit and file capabilities on artifacts",
        53: "folder with mode 000 at the end",
        54: "archive bombs, members that leave the folder, symlinks, devices, duplicates",
    },
    "Escape and snooping": {
        55: "/proc and /sys of other processes and of the kernel",
        56: "kill, ptrace and memory access on the supervisor",
        57: "the supervisor's file descriptors",
        58: "forged control messages",
        59: "new namespaces",
        60: "mounts",
        61: "core_pattern, release_agent, binfmt_misc, modprobe",
        62: "writes to its own cgroup",
        63: "device nodes",
        64: "foreign ABIs and invalid system call numbers",
        65: "io_uring",
        66: "bpf, perf, userfaultfd, keys, file handles, modules, clocks, personality",
        67: "TIOCSTI and TIOCLINUX",
        68: "vsock, packet, netlink, alg and raw sockets",
        69: "chroot escape with an open folder",
        70: "set-uid programs",
        71: "groups, capabilities, securebits",
        72: "programs from memory",
    },
    "Leaks between jobs": {
        73: "files in /dev/shm",
        74: "System V memory, semaphores, queues",
        75: "POSIX message queues",
        76: "keyrings",
        77: "abstract Unix sockets",
        78: "locks and leases on shared files",
        79: "inotify and fanotify on shared trees",
        80: "files in /tmp, /var/tmp, spools, home",
        81: "daemon that outlives the response",
        82: "listener on loopback reached by another job",
        83: "state that a prestarted interpreter keeps from an earlier job",
        84: "load, timing and statistics of the kernel",
    },
    "Network": {
        85: "DNS, IPv6, UDP, ICMP with the network off",
        86: "metadata service, gateway, our own ports",
        87: "allowed host names that resolve elsewhere",
        88: "callbacks to internal addresses",
        89: "port scans and spam with the network on",
    },
    "API": {
        90: "no token, another user's token, another user's run",
        91: "a user id in the request",
        92: "limits that are negative, 0, NaN, infinite, text, above the maximum",
        93: "huge, deeply nested, compressed bodies; duplicate keys",
        94: "10,000 arguments, 2 MB of arguments",
        95: "shell syntax in arguments, names, languages, versions",
        96: "slow, half-closed and disconnected clients",
        97: "WebSocket without init or with two, huge and malformed frames, floods of signals",
        98: "one client floods the queue",
        99: "the same idempotency key in parallel",
        100: "server killed during a run",
        101: "cancellation that races the end of a run",
        102: "package index: wrong hash, replay, hijacked names, full disk, interrupted and concurrent installations",
        103: "forged log lines; secrets and source code in logs",
    },
    "Verdicts": {
        104: "exit(0) before the assertions",
        105: "printing the grader's success message",
        106: "reading the expected output from disk, memory or cache",
        107: "patched assertions and comparisons",
        108: "manipulated clocks",
        109: "NaN, -0, 1e999, commas and blanks in numeric checkers",
        110: "checker that hangs, crashes, forks or floods",
    },
}

NAMED_OTHERWISE: dict[int, tuple[str, ...]] = {
    54: (
        "packages/test_archives.py::test_refuses",
        "packages/test_archives.py::test_rejects_invalid_archives_and_decompression_bombs",
        "packages/test_archives.py::test_rejects_an_image_with",
        "packages/test_archives.py::test_a_decompression_bomb_is_stopped_at_the_limit",
        "packages/test_archives.py::test_a_hostile_archive_leaves_nothing_behind",
        "stdio/test_archive.py::test_hostile_members_are_refused",
        "stdio/test_archive.py::test_decompression_bombs_are_rejected",
    ),
    90: (
        "accounts/test_doors.py::test_is_closed_without_a_right_token",
        "accounts/test_doors.py::test_a_websocket_takes_the_token_from_a_header_or_the_query",
        "accounts/test_doors.py::test_runs_of_other_users_are_not_found",
        "accounts/test_identify.py::test_a_wrong_token_is_refused_even_where_none_is_needed",
        "glot/test_wire.py::test_what_is_shown_of_a_token_never_logs_in",
    ),
    91: (
        "accounts/test_doors.py::test_a_websocket_takes_the_token_from_a_header_or_the_query",
        "accounts/test_doors.py::test_runs_of_other_users_are_not_found",
    ),
    92: (
        "native/test_bad_input.py::test_is_rejected_with_an_explanation",
        "piston/test_bad_input.py::test_a_wrong_request_is_400",
        "piston/test_limits.py::test_negative_times_are_refused",
    ),
    93: (
        "native/test_transport.py::test_a_huge_body_is_413",
        "native/test_transport.py::test_other_bodies_are_415",
        "native/test_bad_input.py::test_is_rejected_with_an_explanation",
        "doors/test_json.py::test_every_door_refuses_what_holds_too_much",
        "doors/test_json.py::test_a_repeated_key_is_found_without_writing_down_every_path",
        "piston/test_bad_input.py::test_malformed_json_is_400",
        "piston/test_bad_input.py::test_a_compressed_body_is_415",
        "piston/test_bad_input.py::test_a_body_of_100_megabytes_is_413",
    ),
    94: (
        "native/test_bad_input.py::test_is_rejected_with_an_explanation",
        "piston/test_bad_input.py::test_a_wrong_request_is_400",
        "doors/test_json.py::test_too_many_files_and_arguments_are_rejected_unread",
        "engine/test_lifecycle.py::test_a_program_that_cannot_be_started_says_why",
    ),
    95: (
        "native/test_bad_input.py::test_is_rejected_with_an_explanation",
        "piston/test_bad_input.py::test_a_wrong_request_is_400",
        "engine/test_lifecycle.py::test_arguments_and_variables_are_for_the_program_as_they_are",
        "stdio/test_requests.py::test_shell_characters_in_a_language_are_not_interpreted",
        "stdio/test_requests.py::test_a_main_file_with_a_strange_name_is_only_a_name",
    ),
    96: (
        "native/test_transport.py::test_a_disconnected_client_cancels_its_run",
        "native/test_transport.py::test_a_client_that_resets_its_connection_cancels_its_run",
        "native/test_transport.py::test_disconnecting_within_a_body_leaves_nothing_behind",
        "native/test_transport.py::test_a_half_closed_connection_counts_as_gone",
        "native/test_transport.py::test_a_body_that_stops_coming_times_out",
    ),
    97: (
        "piston/test_connect.py::test_no_init_is_4001",
        "piston/test_connect.py::test_two_inits_are_4000",
        "piston/test_connect.py::test_a_frame_that_is_no_object_is_an_error_and_4002",
        "piston/test_connect.py::test_a_huge_frame_closes_the_connection",
        "piston/test_connect.py::test_a_flood_of_signals_does_no_harm",
        "native/test_live.py::test_no_message_at_all_is_not_waited_for_for_ever",
        "native/test_live.py::test_an_invalid_start_is_rejected_with_an_explanation",
        "native/test_live.py::test_a_bad_message_ends_the_run",
        "native/test_live.py::test_a_thousand_signals_are_only_signals",
        "native/test_live.py::test_a_huge_frame_closes_the_connection",
        "grounds/test_hostile.py::test_a_malformed_packet_closes_the_connection_with_words",
    ),
    98: ("accounts/test_limits.py::test_flooding_the_queue_does_not_delay_others",),
    102: (
        "packages/test_install.py::test_an_invalid_file_changes_nothing",
        "packages/test_install.py::test_one_package_is_not_passed_off_as_another",
        "packages/test_install.py::test_kill_at_any_moment_leaves_the_previous_state",
        "packages/test_install.py::test_a_full_disk_leaves_the_previous_state",
        "packages/test_install.py::test_concurrent_processes_install_the_same_package",
        "packages/test_download.py::test_file_with_a_wrong_checksum_is_rejected_and_deleted",
        "packages/test_download.py::test_without_a_key_network_packages_require_the_operators_permission",
        "packages/test_repositories.py::test_replayed_index_with_a_lower_serial_is_rejected",
        "packages/test_repositories.py::test_all_reaches_every_version_and_prefers_the_first_repository",
        "packages/test_store.py::test_uninstalling_waits_for_every_holder_and_refuses_new_ones",
    ),
    103: (
        "cli/test_main.py::test_log_lines_cannot_be_forged",
        "cli/test_serve.py::test_nothing_of_a_client_gets_into_the_log_but_that_it_called",
        "storage/test_failures.py::test_neither_code_nor_output_is_in_the_log",
        "grounds/test_login.py::test_tokens_are_not_logged",
    ),
}
"""Tests of an attack that are named after the promise instead."""

WITHOUT_TEST: dict[int, str] = {
    84: "not prevented and not promised, see [SECURITY.md](../../SECURITY.md)",
    87: "there is no list of allowed names: programs have no network",
    88: "there are no callbacks",
    89: "programs have no network",
    99: "there are no idempotency keys",
    **dict.fromkeys(range(104, 111), "there is no judge yet"),
}


def attacks_page() -> str:
    """Return docs/reference/attacks.md. Raises: LookupError when an attack has neither tests nor a reason, or both."""
    held = tests_by_attack()
    return HEAD + "".join(
        f"\n## {group}\n"
        + "".join(f"\n**{number}. {what}**\n\n{_held_by(number, held.get(number, []))}" for number, what in attacks.items())
        for group, attacks in ATTACKS.items()
    )


def _held_by(number: int, tests: list[str]) -> str:
    if bool(tests) == (number in WITHOUT_TEST):
        raise LookupError(f"attack {number} needs either tests named after it or a reason in WITHOUT_TEST")
    if not tests:
        return list_item(f"no test: {WITHOUT_TEST[number]}")
    files: dict[str, list[str]] = defaultdict(list)
    for test in tests:
        file, _, name = test.partition("::")
        files[file].append(f"`{name}`")
    return "".join(list_item(f"[{file}](../../tests/{file}): {', '.join(names)}") for file, names in files.items())


def list_item(text: str) -> str:
    """Return an item of a Markdown list, wrapped."""
    return fill(text, 130, initial_indent="* ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False) + "\n"


def tests_by_attack() -> dict[int, list[str]]:
    """Return the tests of each attack as `file::name`. Raises: LookupError when a test named here does not exist."""
    held: dict[int, list[str]] = defaultdict(list)
    known = dict.fromkeys(_tests())
    for test in known:
        for number in attacks_in(test.partition("::")[2]):
            held[number].append(test)
    for number, tests in NAMED_OTHERWISE.items():
        if lost := [test for test in tests if test not in known]:
            raise LookupError(f"attack {number}: no such test: {', '.join(lost)}")
        held[number] += tests
    if strange := held.keys() - {number for attacks in ATTACKS.values() for number in attacks}:
        raise LookupError(f"no attack has the number {strange}")
    return held


def attacks_in(name: str) -> list[int]:
    """Return the attack numbers in a test's name: [1, 2] for test_attack_01_02_a_bomb, [35, 36] for test_attacks_35_and_36_b."""
    match = re.match(r"test_attacks?_(\d+(?:_(?:and_)?\d+)*)(?:_|$)", name)
    return [int(number) for number in re.findall(r"\d+", match[1])] if match else []


def _tests() -> Iterator[str]:
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                yield f"{path.relative_to(TESTS)}::{node.name}"
