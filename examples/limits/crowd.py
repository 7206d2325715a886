"""A program that multiplies: the process limit stops it, and nothing of the crowd is left behind. 🐇"""

import os
import signal

print("🐇 one, two, three ...", flush=True)
children = 0
try:
    while children < 10_000:
        if os.fork() == 0:
            signal.pause()
        children += 1
except BlockingIOError as error:
    print(f"asked for 10,000, stopped at {children}: {error.strerror}")
