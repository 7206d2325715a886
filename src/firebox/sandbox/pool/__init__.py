"""Sandboxes kept ready, and the templates that interpreters are restored from."""
