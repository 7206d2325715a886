"""Users in a server's database, added without the server."""

from __future__ import annotations

from firebox.settings.settings import load_settings
from firebox.storage.records import Role
from firebox.storage.stores import open_stores


async def add_user(database_url: str, name: str, token: str, role: Role) -> int:
    """Add a user. Return the id."""
    async with open_stores(load_settings({"database_url": database_url}, environ={})) as stores:
        return (await stores.users.add(name=name, token=token, role=role)).id
