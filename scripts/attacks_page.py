"""The page docs/attacks.md: every attack by its number, with the tests that hold it, found by their names in tests/."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent / "tests"

HEAD = """\
# Attacks and the tests that hold them

<!-- Written by `make docs` from the names of the tests and from scripts/attacks_page.py: change it there. -->

What untrusted programs and hostile clients do, by numbers that never change. A test is named after the attack that it tries:
`pytest -k attack_58`. Each tries it for real, checks that the answer is a clear status in bounded time, and that nothing is left.
"""

ATTACKS: dict[str, dict[int, str]] = {
    "Exhaustion": {
        1: "fork bomb",
        2: "thread bomb",
        3: "fork, setsid and ignored signals",
        4: "one job at its process limit stops another",
        5: "zombies and orphans",
        6: "memory that is touched without end",
        7: "many small children, their sum over the limit",
        8: "memory as files in tmpfs and /dev/shm",
        9: "memory as pipes, sockets, memfd, System V segments",
        10: "page cache that must not kill a small program",
        11: "swap as a way around the memory limit",
        12: "kernel memory: dentries, inotify, epoll, keyrings",
        13: "one huge file, fallocate, a sparse terabyte",
        14: "a million empty files",
        15: "folders ten thousand deep",
        16: "file names with newlines, dashes, bytes that are no text",
        17: "every place that can be written filled",
        18: "flood on standard output",
        19: "flood on standard error",
        20: "floods on both at once",
        21: "more output than a pipe holds, then silence",
        22: "one byte a second for ever",
        23: "flood to a slow or vanished client",
        24: "terminal escapes and markup in output",
        25: "busy loop",
        26: "sleep without end",
        27: "read from an input that never ends",
        28: "SIGSTOP to itself and its group",
        29: "ignored SIGTERM and SIGXCPU",
        30: "closed output, still running",
        31: "exit with a child that keeps the output open",
    },
    "Compile stage": {
        32: "#include of /dev/zero, /dev/stdin, a pipe",
        33: "main[-1u]={1}",
        34: "initialised array of 500 MB",
        35: "exponential templates and constexpr",
        36: "macro expansion bomb",
        37: "megabytes of error messages",
        38: ".incbin and #include of files of the host and of others",
        39: "code that runs in the compiler; plugins, wrappers, specs, response files",
        40: "a program or toolchain overwritten for the next run",
        41: "poisoned compile cache",
        42: "startup files and variables: .pth, sitecustomize, BASH_ENV, LD_PRELOAD, NODE_OPTIONS",
    },
    "Files in and out": {
        43: "names that leave the folder, clash or are odd",
        44: "NUL in names, arguments, variables, input",
        45: "lone surrogates, invalid UTF-8, BOM, CRLF",
        46: "artifact that is a link to a file of the host",
        47: "linked parent folder",
        48: "hard link to a protected file",
        49: "artifact that is a pipe, socket or device",
        50: "file and link swapped while they are copied",
        51: "file that grows while it is read",
        52: "set-uid bit and file capabilities on artifacts",
        53: "folder with mode 000 at the end",
        54: "archive bombs, members that leave the folder, links, devices, duplicates",
    },
    "Escape and snooping": {
        55: "/proc and /sys of others and of the kernel",
        56: "kill, ptrace and memory access on the supervisor",
        57: "the supervisor's descriptors",
        58: "forged control messages",
        59: "new namespaces",
        60: "mounts",
        61: "core_pattern, release_agent, binfmt_misc, modprobe",
        62: "writes to its own control group",
        63: "device nodes",
        64: "foreign ABIs and odd system call numbers",
        65: "io_uring",
        66: "bpf, perf, userfaultfd, keys, file handles, modules, clocks, personality",
        67: "TIOCSTI and TIOCLINUX",
        68: "vsock, packet, netlink, alg and raw sockets",
        69: "chroot break with a kept folder",
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
        81: "daemon that outlives the reply",
        82: "listener on loopback reached by another job",
        83: "what a program that was started ahead keeps of an earlier job",
        84: "load, timing and statistics of the kernel",
    },
    "Network": {
        85: "DNS, IPv6, UDP, ICMP with the network off",
        86: "metadata service, gateway, our own ports",
        87: "allowed names that lead elsewhere",
        88: "callbacks to addresses inside",
        89: "port scans and spam with the network on",
    },
    "API": {
        90: "no token, another's token, another's run",
        91: "a user id in the request",
        92: "limits that are negative, 0, NaN, infinite, text, above the maximum",
        93: "huge, deep, compressed bodies; keys twice",
        94: "10,000 arguments, 2 MB of arguments",
        95: "shell words in arguments, names, languages, versions",
        96: "slow, half-closed and vanished clients",
        97: "WebSocket without init, with two, huge and bad frames, floods of signals",
        98: "one client floods the queue",
        99: "the same idempotency key in parallel",
        100: "server killed in the middle of a run",
        101: "cancel racing the end",
        102: "package index: wrong hash, replay, names taken over, disk full, kills half-way, two at once",
        103: "forged log lines; secrets and code in logs",
    },
    "Verdicts": {
        104: "exit(0) before the checks",
        105: "the grader's own success words printed",
        106: "expected output read from disk, memory or cache",
        107: "patched asserts and comparison",
        108: "wall-clock games",
        109: "NaN, -0, 1e999, commas, blanks in a checker of numbers",
        110: "checker that hangs, crashes, forks, floods",
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
        "accounts/test_doors.py::test_a_run_of_somebody_else_does_not_exist",
        "accounts/test_identify.py::test_a_wrong_token_is_refused_even_where_none_is_needed",
        "glot/test_wire.py::test_what_is_shown_of_a_token_never_logs_in",
    ),
    91: (
        "accounts/test_doors.py::test_a_websocket_takes_the_token_from_a_header_or_the_query",
        "accounts/test_doors.py::test_a_run_of_somebody_else_does_not_exist",
    ),
    92: (
        "native/test_bad_input.py::test_is_refused_in_words",
        "piston/test_bad_input.py::test_a_wrong_request_is_400",
        "piston/test_limits.py::test_negative_times_are_refused",
    ),
    93: (
        "native/test_transport.py::test_a_huge_body_is_413",
        "native/test_transport.py::test_other_bodies_are_415",
        "native/test_bad_input.py::test_is_refused_in_words",
        "doors/test_json.py::test_every_door_refuses_what_holds_too_much",
        "doors/test_json.py::test_a_repeated_key_is_found_without_writing_down_every_path",
        "piston/test_bad_input.py::test_malformed_json_is_400",
        "piston/test_bad_input.py::test_a_compressed_body_is_415",
        "piston/test_bad_input.py::test_a_body_of_100_megabytes_is_413",
    ),
    94: (
        "native/test_bad_input.py::test_is_refused_in_words",
        "piston/test_bad_input.py::test_a_wrong_request_is_400",
        "doors/test_json.py::test_too_many_files_and_words_are_refused_before_they_are_looked_at",
        "engine/test_lifecycle.py::test_a_program_that_cannot_be_started_says_why",
    ),
    95: (
        "native/test_bad_input.py::test_is_refused_in_words",
        "piston/test_bad_input.py::test_a_wrong_request_is_400",
        "engine/test_lifecycle.py::test_arguments_and_variables_are_for_the_program_as_they_are",
        "stdio/test_requests.py::test_shell_characters_in_a_language_are_not_interpreted",
        "stdio/test_requests.py::test_a_main_file_with_a_strange_name_is_only_a_name",
    ),
    96: (
        "native/test_transport.py::test_a_client_that_goes_away_cancels_its_run",
        "native/test_transport.py::test_a_client_that_resets_its_connection_cancels_its_run",
        "native/test_transport.py::test_a_client_that_goes_away_within_its_body_leaves_nothing",
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
        "native/test_live.py::test_a_bad_start_is_refused_in_words",
        "native/test_live.py::test_a_bad_message_ends_the_run",
        "native/test_live.py::test_a_thousand_signals_are_only_signals",
        "native/test_live.py::test_a_huge_frame_closes_the_connection",
        "grounds/test_hostile.py::test_a_malformed_packet_closes_the_connection_with_words",
    ),
    98: ("accounts/test_limits.py::test_one_who_floods_the_queue_holds_up_nobody_else",),
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
"""Tests that hold an attack and are named for the promise instead."""

WITHOUT_TEST: dict[int, str] = {
    84: "not prevented and not promised, see [SECURITY.md](../SECURITY.md)",
    87: "there is no list of allowed names: programs have no network",
    88: "there are no callbacks",
    89: "programs have no network",
    99: "there are no idempotency keys",
    **dict.fromkeys(range(104, 111), "judging is not built yet"),
}


def attacks_page() -> str:
    """Write docs/attacks.md, as Markdown. Raises: LookupError when an attack has neither tests nor a reason, or both."""
    held = tests_by_attack()
    return HEAD + "".join(
        f"\n## {group}\n\n| | attack | held by |\n| ---: | --- | --- |\n"
        + "".join(f"| {number} | {what} | {_held_by(number, held.get(number, []))} |\n" for number, what in attacks.items())
        for group, attacks in ATTACKS.items()
    )


def _held_by(number: int, tests: list[str]) -> str:
    if bool(tests) == (number in WITHOUT_TEST):
        raise LookupError(f"attack {number} needs tests named after it or a reason in WITHOUT_TEST, and not both")
    if not tests:
        return f"no test: {WITHOUT_TEST[number]}"
    files: dict[str, list[str]] = defaultdict(list)
    for test in tests:
        file, _, name = test.partition("::")
        files[file].append(f"`{name}`")
    return "<br>".join(f"[{file}](../tests/{file}): {', '.join(names)}" for file, names in files.items())


def tests_by_attack() -> dict[int, list[str]]:
    """Find the tests of each attack, as `file::name`. Raises: LookupError when one that is named here is not there."""
    held: dict[int, list[str]] = defaultdict(list)
    known = dict.fromkeys(_tests())
    for test in known:
        for number in attacks_in(test.partition("::")[2]):
            held[number].append(test)
    for number, tests in NAMED_OTHERWISE.items():
        if lost := [test for test in tests if test not in known]:
            raise LookupError(f"attack {number}: there is no {', '.join(lost)}")
        held[number] += tests
    if strange := held.keys() - {number for attacks in ATTACKS.values() for number in attacks}:
        raise LookupError(f"no attack has the number {strange}")
    return held


def attacks_in(name: str) -> list[int]:
    """Return the numbers in a test's name: [1, 2] for test_attack_01_02_a_bomb, [35, 36] for test_attacks_35_and_36_some."""
    match = re.match(r"test_attacks?_(\d+(?:_(?:and_)?\d+)*)(?:_|$)", name)
    return [int(number) for number in re.findall(r"\d+", match[1])] if match else []


def _tests() -> Iterator[str]:
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                yield f"{path.relative_to(TESTS)}::{node.name}"
