"""The catalogue: what clients may ask for, and which backends serve it."""

from typing import Final

from gateway.stores.sql.records import Records
from gateway.stores.sql.rows import Model
from gateway.stores.sql.tables import models

RECORDS: Final = Records(models, Model)
