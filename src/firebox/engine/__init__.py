"""Admission, stages, events, results."""
