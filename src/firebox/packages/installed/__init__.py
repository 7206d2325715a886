"""Packages on this machine: unpacked, checked, installed and removed."""
