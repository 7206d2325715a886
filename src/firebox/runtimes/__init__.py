"""Runtimes: definitions, tools of the host, selection by name and version."""
