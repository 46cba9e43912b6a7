"""What is said when a law does not hold."""


class Violation(Exception):  # noqa: N818 (the word for it)
    """A law does not hold."""

    def __init__(self, law: str, what: str, request_id: str = "") -> None:
        super().__init__(f"{law}: {what}")
        self.law = law
        self.request_id = request_id
