"""Alembic's entry point: migrates over the connection, and in the transaction, that `storage/schema.py` passes in."""

from __future__ import annotations

from alembic import context

from firebox.storage.schema import VERSION_TABLE
from firebox.storage.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # The caller's transaction contains everything, including the lock.
    transactional_ddl=False,
)
context.run_migrations()
