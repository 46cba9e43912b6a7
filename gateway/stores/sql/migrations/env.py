"""Alembic's entry point: runs the revisions on the connection and in the transaction given."""

from alembic import context
from sqlalchemy import Connection

from gateway.stores.sql.admin_tables import audit_rows


def run() -> None:
    connection: Connection = context.config.attributes["connection"]
    context.configure(
        connection=connection,
        target_metadata=audit_rows.metadata,
        transactional_ddl=True,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    context.run_migrations()


run()
