# ruff: noqa: N818 - these name what happened; callers read `except ConnectFailed`
"""How an exchange with a backend can fail, and whether the backend may have seen the request.

TransportError
  PoolTimeout        no connection came free in time          never sent
  ConnectFailed      no connection could be made              never sent
  ConnectTimeout     it could not be made in time             never sent
  FirstByteTimeout   no answer began in time                  sent
  IdleTimeout        the answer paused for too long           sent
  TotalTimeout       the whole took too long                  sent, unless it never left the queue
  UpstreamClosed     the backend closed before the end        sent
  Malformed          what came was not HTTP we accept         sent
  AnswerTooLarge     the answer passed the caller's bound     sent
"""


class TransportError(Exception):
    """`sent` is False only when provably no byte of the request left this process."""

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class NeverSent(TransportError):
    def __init__(self, message: str) -> None:
        super().__init__(message, sent=False)


class PoolTimeout(NeverSent):
    pass


class ConnectFailed(NeverSent):
    pass


class ConnectTimeout(NeverSent):
    pass


class FirstByteTimeout(TransportError):
    pass


class IdleTimeout(TransportError):
    pass


class TotalTimeout(TransportError):
    pass


class UpstreamClosed(TransportError):
    pass


class Malformed(TransportError):
    pass


class AnswerTooLarge(TransportError):
    pass
