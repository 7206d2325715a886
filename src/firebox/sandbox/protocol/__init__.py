"""The messages between server, launcher and PID 1, and the packs of files that a sandbox returns."""
