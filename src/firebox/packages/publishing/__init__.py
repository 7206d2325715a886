"""Folders of packages as repositories, and bundles for machines without a network."""
