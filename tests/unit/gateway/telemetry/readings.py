"""Reads single figures out of a registry, the way a dashboard would ask for them."""

from gateway.telemetry.booking import Booking
from gateway.telemetry.metrics import Registry
from gateway.telemetry.names import Convention
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.snapshots import merged


def booked(*records: RequestRecord) -> Registry:
    """What there is to read after these requests."""
    registry = Registry()
    booking = Booking(registry, Convention.BOTH, none_lost)
    for record in records:
        booking.book(record)
    return registry


def none_lost(records: int) -> None:
    raise AssertionError(f"{records} records could not be booked")


def cells(registry: Registry, name: str, **labels: str) -> list[int]:
    """The one series of `name` with these label values (`.` written as `__`), or all zeros."""
    wanted = {label.replace("__", "."): value for label, value in labels.items()}
    found = [
        cells
        for values in merged(registry.values())
        if values.family.names == (name,)
        for key, cells in values.rows
        if wanted.items() <= dict(zip(values.family.labels, key, strict=True)).items()
    ]
    return [sum(column) for column in zip(*found, strict=True)] if found else []


def count(registry: Registry, name: str, **labels: str) -> int:
    """How many observations a histogram has."""
    return sum(cells(registry, name, **labels)[1:])


def total(registry: Registry, name: str, **labels: str) -> int:
    """A counter's figure, or a histogram's sum; undivided."""
    found = cells(registry, name, **labels)
    return found[0] if found else 0
