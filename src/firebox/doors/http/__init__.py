"""Shared by the HTTP doors: bounded requests, JSON, credentials and responses."""
