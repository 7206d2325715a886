"""Untrusted client and package files on this machine: archives and folders."""
