"""Alembic's entry point: runs the revisions on the connection and in the transaction given."""

from alembic import context
from sqlalchemy import Connection

from gateway.stores.sql import (
    admin_tables,
    alert_tables,
    breaker_tables,
    decision_tables,
    end_user_tables,
    idle_tables,
    invoice_tables,
    journal_tables,
    policy_tables,
    provider_bill_tables,
    repricing_tables,
    self_check_tables,
    tables,
)

# They declare their tables with the rest.
_OTHERS = (
    admin_tables, alert_tables, breaker_tables, decision_tables, end_user_tables, idle_tables,
    invoice_tables, journal_tables, policy_tables, provider_bill_tables, repricing_tables,
    self_check_tables
)  # fmt: skip


def run() -> None:
    connection: Connection = context.config.attributes["connection"]
    context.configure(
        connection=connection,
        target_metadata=tables.metadata,
        transactional_ddl=True,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    context.run_migrations()


run()
