"""Packages on this machine: preparation, installation, lookup and removal."""
