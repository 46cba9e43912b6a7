"""What to say of prices and discounts that begin before they were made."""

from gateway import clock


def warnings(effective_from_us: int, created_at_us: int) -> tuple[str, ...]:
    """Nothing is rated twice: whoever dates back should not wait for it."""
    if effective_from_us >= created_at_us:
        return ()
    since, until = clock.rfc3339(effective_from_us), clock.rfc3339(created_at_us)
    said = (
        f"it begins at {since} and was made at {until}: what was used between the two was rated at "
        "the prices in force then, and stays so; what a tenant was charged is corrected by "
        "POST /admin/v1/repricings"
    )
    return (said,)
