"""What does a program see from inside the sandbox? 🔥"""

import os
import socket

print("🔥 Hello from Python!")
print(f"user {os.getuid()} on host {socket.gethostname()!r}, as process {os.getpid()}")

processes = [name for name in os.listdir("/proc") if name.isdigit()]
print(f"processes I can see: {len(processes)}")

for attempt, action in {
    "read /etc/shadow": lambda: open("/etc/shadow").read(),
    "write to /usr": lambda: open("/usr/mine", "w"),
    "find a way out": lambda: socket.socket(type=socket.SOCK_DGRAM).connect(("192.0.2.1", 9)),
    "become root": lambda: os.setuid(0),
}.items():
    try:
        action()
        print(f"  😱 {attempt}: worked")
    except OSError as error:
        print(f"  🔒 {attempt}: {error.strerror}")
