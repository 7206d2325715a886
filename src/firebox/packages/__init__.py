"""Floor 4: packages: repositories and their indices, download, verification, installed ones, building."""
