"""Budgets: how much a tenant, team or key may spend in a period."""

from typing import Final

from gateway.stores.sql.records import Records
from gateway.stores.sql.rows import Budget
from gateway.stores.sql.tables import budgets

RECORDS: Final = Records(budgets, Budget)
