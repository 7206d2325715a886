"""Users, languages, snippets, usage and leases. Takes over Runner's table `shared_codes` with its rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op

from firebox.domain.errors import SettingsError

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

RUNNER_COLUMNS = {"id", "code", "output", "error", "created_at"}
ASIDE = "shared_codes_before_firebox"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "firebox_users",
        sa.Column("id", ID, nullable=False),
        sa.Column("uuid", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("token_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("token_hint", sa.Text(), nullable=False),
        sa.Column("disabled_at", MOMENT),
        sa.Column("runs_per_minute", sa.BigInteger()),
        sa.Column("concurrent_runs", sa.BigInteger()),
        sa.Column("cpu_seconds_per_day", sa.BigInteger()),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("modified_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_firebox_users"),
        sa.UniqueConstraint("uuid", name="uq_firebox_users_uuid"),
        sa.UniqueConstraint("name", name="uq_firebox_users_name"),
        sa.UniqueConstraint("token_sha256", name="uq_firebox_users_token_sha256"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "firebox_languages",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("modified_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_firebox_languages"),
        sa.UniqueConstraint("name", "version", name="uq_firebox_languages_name"),
    )
    op.create_table(
        "firebox_usage",
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("window_s", sa.BigInteger(), nullable=False),
        sa.Column("ends_at_s", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subject", "name", "window_s", "ends_at_s", name="pk_firebox_usage"),
    )
    op.create_index("ix_firebox_usage_ends_at_s", "firebox_usage", ["ends_at_s"])
    op.create_table(
        "firebox_leases",
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("lease_id", sa.Text(), nullable=False),
        sa.Column("ends_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subject", "lease_id", name="pk_firebox_leases"),
    )
    op.create_index("ix_firebox_leases_ends_at_ms", "firebox_leases", ["ends_at_ms"])
    taken_over = op.create_table(
        "firebox_taken_over",
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_firebox_taken_over"),
    )
    if sa.inspect(op.get_bind()).has_table("shared_codes"):
        _take_over()
        op.bulk_insert(taken_over, [{"name": "shared_codes"}])
    else:
        _create_snippets()
    op.create_index("ix_shared_codes_created_at", "shared_codes", ["created_at"])


def downgrade() -> None:
    """Restore Runner's table with its rows. Everything else is lost."""
    op.drop_index("ix_shared_codes_created_at", "shared_codes")
    if op.get_bind().execute(sa.text("SELECT name FROM firebox_taken_over WHERE name = 'shared_codes'")).first():
        _give_back()
    else:
        op.drop_table("shared_codes")
    for table in ("firebox_taken_over", "firebox_leases", "firebox_usage", "firebox_languages", "firebox_users"):
        op.drop_table(table)


def _create_snippets() -> None:
    op.create_table(
        "shared_codes",
        sa.Column("id", ID, nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("output", sa.Text()),
        sa.Column("error", sa.Text()),
        sa.Column("created_at", MOMENT, nullable=False, server_default=sa.func.now()),
        sa.Column("language", sa.Text(), nullable=False, server_default="go"),
        sa.PrimaryKeyConstraint("id", name="pk_shared_codes"),
        sqlite_autoincrement=True,
    )


def _create_runners_table() -> None:
    op.create_table(
        "shared_codes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("output", sa.Text()),
        sa.Column("error", sa.Text()),
        sa.Column("created_at", sa.DateTime(), server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("id", name="shared_codes_pkey"),
        sqlite_autoincrement=True,
    )


def _rebuild(create: Callable[[], None], created_at: str) -> None:
    """Replace SQLite's table, whose columns cannot be altered, and copy its rows."""
    op.rename_table("shared_codes", ASIDE)
    create()
    columns = "id, code, output, error"
    rows = f"SELECT {columns}, {created_at} FROM {ASIDE} ORDER BY id"  # noqa: S608 - our own names
    op.execute(f"INSERT INTO shared_codes ({columns}, created_at) {rows}")
    op.drop_table(ASIDE)


def _take_over() -> None:
    """Convert Runner's table. Its own server can continue to use it: it finds its columns, and new ones have defaults."""
    _check_is_runners()
    if not _is_postgresql():
        _rebuild(_create_snippets, "COALESCE(created_at, CURRENT_TIMESTAMP)")
        return
    op.execute("LOCK TABLE shared_codes IN ACCESS EXCLUSIVE MODE")
    op.execute("UPDATE shared_codes SET created_at = now() WHERE created_at IS NULL")
    # Runner's timestamps are taken to be in the session's time zone, in which PostgreSQL's now() wrote them.
    op.execute(
        "ALTER TABLE shared_codes ALTER COLUMN id TYPE bigint, "
        "ALTER COLUMN created_at TYPE timestamp with time zone, "
        "ALTER COLUMN created_at SET DEFAULT now(), ALTER COLUMN created_at SET NOT NULL, "
        "ADD COLUMN language text NOT NULL DEFAULT 'go'"
    )
    _alter_sequence("bigint")


def _give_back() -> None:
    if not _is_postgresql():
        _rebuild(_create_runners_table, "created_at")
        return
    op.execute(
        "ALTER TABLE shared_codes DROP COLUMN language, ALTER COLUMN created_at DROP NOT NULL, "
        "ALTER COLUMN created_at TYPE timestamp without time zone, ALTER COLUMN id TYPE integer"
    )
    _alter_sequence("integer")


def _alter_sequence(type_: str) -> None:
    """Widen the sequence of the ids to the type of the column. A table of Runner's created by hand may have none."""
    name: Any = op.get_bind().execute(sa.text("SELECT pg_get_serial_sequence('shared_codes', 'id')")).scalar()
    if name is not None:
        op.execute(f"ALTER SEQUENCE {name} AS {type_}")


def _check_is_runners() -> None:
    columns = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("shared_codes")}
    missing = sorted(RUNNER_COLUMNS - columns)
    if missing or "language" in columns:
        problem = f"lacks {', '.join(missing)}" if missing else "has a column language already"
        raise SettingsError(
            "database_url",
            value="a database with a table shared_codes",
            allowed=f"one in which that table is Runner's; this one {problem}",
            hint="rename that table, or use another database",
        )


def _is_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"
