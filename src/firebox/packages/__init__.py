"""Packages: repositories, download, installation, publishing, building."""
