"""Draw the figures of docs/concepts/: the processes of a server, and one run in time."""

from __future__ import annotations

from scripts.svg import ACCENT, AMBER, BLUE, GREEN, GREY, INK, PAPER, QUIET, ROSE, Drawing


def processes() -> str:
    """Return the processes of a server, who starts whom, and what goes through which socket or pipe."""
    drawing = Drawing(1040, 500, "The processes of Firebox, and what connects them")
    drawing.text(24, 30, "Processes, and what connects them", size=16, bold=True)

    drawing.box(24, 190, 120, 60, fill=PAPER, dashed=True)
    drawing.text(84, 217, "clients", bold=True, anchor="middle")
    drawing.text(84, 235, "HTTP, gRPC", size=12, ink=QUIET, anchor="middle")
    drawing.line((144, 220), (226, 220), arrow=True)

    drawing.box(230, 60, 250, 330, fill=BLUE)
    drawing.text(250, 86, "server", size=15, bold=True)
    drawing.text(250, 104, "Python, one event loop", size=11, ink=QUIET)
    for row, (name, what) in enumerate(
        (
            ("doors", "parse requests, encode answers"),
            ("service", "permissions, quotas"),
            ("engine", "admission, limits, events"),
            ("pool", "idle sandboxes, ready to use"),
            ("job cache", "compiled programs on disk"),
        )
    ):
        drawing.box(250, 118 + 52 * row, 210, 42, fill=PAPER, stroke=QUIET)
        drawing.text(260, 136 + 52 * row, name, bold=True)
        drawing.text(260, 152 + 52 * row, what, size=11, ink=QUIET)

    drawing.box(600, 60, 200, 80, fill=ROSE)
    drawing.text(616, 86, "launcher", size=15, bold=True)
    drawing.text(616, 104, "C, one thread, privileged", size=11, ink=QUIET)
    drawing.text(616, 121, "reads no user input, no output", size=11, ink=QUIET)
    drawing.line((480, 92), (596, 92), arrow=True, ink=INK)
    drawing.text(490, 84, "plans to carry out", size=11)
    drawing.text(490, 108, "SOCK_SEQPACKET", size=11, ink=QUIET, mono=True)

    drawing.box(600, 190, 400, 270, fill=GREY, dashed=True)
    drawing.text(616, 214, "sandbox", size=15, bold=True)
    drawing.text(712, 214, "namespaces, root, cgroup, uid and filter of its own", size=11, ink=QUIET)
    drawing.line((700, 140), (700, 238), arrow=True, ink=INK)
    drawing.text(708, 168, "clone3 into new namespaces", size=11)
    drawing.box(620, 242, 170, 64, fill=AMBER)
    drawing.text(634, 266, "PID 1", bold=True)
    drawing.text(634, 284, "C, drops every privilege,", size=11, ink=QUIET)
    drawing.text(634, 298, "then takes one command", size=11, ink=QUIET)
    drawing.box(620, 372, 170, 64, fill=GREEN)
    drawing.text(634, 396, "the program", bold=True)
    drawing.text(634, 414, "compiler or user code,", size=11, ink=QUIET)
    drawing.text(634, 428, "and its children", size=11, ink=QUIET)
    drawing.line((705, 306), (705, 368), arrow=True, ink=INK)
    drawing.text(713, 342, "vfork, execve", size=11)
    for row, text in enumerate(("/box, /tmp: one tmpfs", "overlay: private inodes", "system call allow-list", "loopback only")):
        drawing.text(820, 266 + 20 * row, text, size=11, ink=QUIET)

    drawing.line((616, 268), (484, 268), arrow=True, ink=ACCENT, width=1.5)
    drawing.line((484, 274), (616, 274), arrow=True, ink=ACCENT, width=1.5)
    drawing.text(490, 260, "command, report", size=11, ink=ACCENT)
    drawing.line((616, 404), (540, 404), (540, 350), (484, 350), arrow=True, ink=ACCENT, width=1.5)
    drawing.text(490, 342, "output, input", size=11, ink=ACCENT)
    drawing.text(490, 366, "pipes", size=11, ink=QUIET)
    drawing.line((484, 310), (616, 310), arrow=True, ink=QUIET, dashed=True)
    drawing.text(490, 324, "cgroup meters", size=11, ink=QUIET)

    drawing.text(24, 430, "The program's output never passes through a privileged process.", size=12)
    drawing.text(24, 450, "When PID 1 dies the sandbox is gone; when the launcher dies, all its sandboxes;", size=12)
    drawing.text(24, 470, "when the server dies, its launchers.", size=12)
    return drawing.svg()


LANES = (("client", PAPER), ("server", BLUE), ("launcher", ROSE), ("PID 1", AMBER), ("program", GREEN))
STEPS: tuple[tuple[str, str, str, str], ...] = (
    ("", "before the request", "", ""),
    ("server", "launcher", "make a sandbox (its whole plan)", "plain"),
    ("launcher", "PID 1", "clone3, then the steps of the plan", "plain"),
    ("PID 1", "server", "ready: pipes and cgroup meters", "plain"),
    ("", "one stage", "", ""),
    ("client", "server", "request", "accent"),
    ("server", "server", "check, admit (or queue), look in the job cache, take an idle sandbox", "note"),
    ("server", "PID 1", "command: argv, environment, limits, files", "accent"),
    ("PID 1", "program", "write files, vfork, execve", "accent"),
    ("server", "launcher", "make the next sandbox for the pool", "plain"),
    ("program", "server", "output", "accent"),
    ("server", "client", "events: stage_started, output ...", "accent"),
    ("program", "PID 1", "exit", "accent"),
    ("PID 1", "PID 1", "kill and reap what is left, collect files", "note"),
    ("PID 1", "server", "report: exit status, times, files", "accent"),
    ("server", "client", "result (after the last stage)", "accent"),
    ("", "afterwards", "", ""),
    ("server", "launcher", "remove the sandbox", "plain"),
    ("launcher", "PID 1", "kill: ends the PID namespace", "plain"),
    ("launcher", "launcher", "reap, remove the cgroup", "note"),
)
"""From, to, what, and how it is drawn; no sender: a heading, which is the second field."""

LANE_WIDTH, ROW = 230, 36


def run_in_time() -> str:
    """Return one run in time, from the sandbox that is made before it to its removal."""
    top, left = 96, 120
    height = top + ROW * len(STEPS) + 24
    drawing = Drawing(left + LANE_WIDTH * (len(LANES) - 1) + 140, height, "One run in time")
    drawing.text(24, 30, "One run in time", size=16, bold=True)
    place = {name: left + LANE_WIDTH * number for number, (name, _fill) in enumerate(LANES)}
    for name, fill in LANES:
        drawing.line((place[name], 84), (place[name], height - 16), ink="#c3ccd6")
        drawing.box(place[name] - 52, 50, 104, 32, fill=fill)
        drawing.text(place[name], 71, name, bold=True, anchor="middle")
    for number, (sender, receiver, what, kind) in enumerate(STEPS):
        y = top + ROW * number + 22
        if not sender:
            drawing.text(16, y, receiver, size=12, bold=True, ink=QUIET)
            drawing.line((16, y + 7), (left + LANE_WIDTH * (len(LANES) - 1) + 120, y + 7), ink="#e4e9ee")
            continue
        start, end = place[sender], place[receiver]
        ink = ACCENT if kind == "accent" else INK
        if kind == "note":
            drawing.dot(start, y, 4, fill=QUIET)
            drawing.text(start + 10, y + 4, what, size=12, ink=QUIET)
        else:
            side = 1 if end > start else -1
            drawing.line((start, y), (end - 3 * side, y), ink=ink, width=1.5, arrow=True)
            drawing.text(min(start, end) + 10, y - 5, what, size=12, ink=ink)
    return drawing.svg()


def overview() -> str:
    """Return what the README shows: clients of six protocols, one server, a sandbox for each stage."""
    drawing = Drawing(900, 250, "Clients of six protocols, one server, one sandbox for each stage")
    for row, (name, what) in enumerate(
        (
            ("Firebox", "REST, events, WebSocket"),
            ("Piston", "REST, WebSocket"),
            ("glot-run", "REST"),
            ("grounds-exec", "Socket.IO"),
            ("rce-runner", "stdin, stdout"),
            ("Runner", "gRPC, REST"),
        )
    ):
        y = 20 + 36 * row
        drawing.box(20, y, 250, 28, fill=PAPER)
        drawing.text(32, y + 19, name, bold=True)
        drawing.text(258, y + 19, what, size=12, ink=QUIET, anchor="end")
        drawing.line((270, y + 14), (366, 124), arrow=True)
    drawing.box(370, 84, 160, 80, fill=BLUE)
    drawing.text(450, 118, "Firebox", size=15, bold=True, anchor="middle")
    drawing.text(450, 140, "queue, limits, quotas", size=12, ink=QUIET, anchor="middle")
    for row, (name, what) in enumerate((("python", "print(6 * 7)"), ("c, compile", "gcc main.c"), ("c, run", "./program"))):
        y = 20 + 72 * row
        drawing.line((530, 124), (616, y + 32), arrow=True, ink=ACCENT, width=1.5)
        drawing.box(620, y, 260, 62, fill=GREY, dashed=True)
        drawing.text(634, y + 18, "sandbox", size=11, ink=QUIET)
        drawing.box(634, y + 25, 232, 28, fill=GREEN)
        drawing.text(644, y + 44, name, bold=True)
        drawing.text(858, y + 44, what, size=11, mono=True, anchor="end")
    return drawing.svg()
