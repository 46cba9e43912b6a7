"""Pieces of a streamed answer, written to the client's connection without a coroutine.

The one other place than uvicorn's own `send` that writes an answer. It takes only what that would
write without a wait, and writes the same bytes.
"""

import weakref

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from gateway.dataplane.outlet import AtOnce


def writer(cycle: RequestResponseCycle) -> AtOnce:
    """For one request. RuntimeError unless its answer has begun, is chunked, and has not ended; a
    client that is gone takes everything in silence, as it does with `send`.

    What a request is told of its answer must not keep the answer: that would be a knot that only
    the collector undoes, one for each request, and it stops the loop for it.
    """
    known = weakref.ref(cycle)

    def at_once(piece: bytes) -> bool:
        cycle = known()
        if cycle is None:
            raise RuntimeError("a piece after the answer")
        if cycle.disconnected:
            return True
        if cycle.flow.write_paused:
            return False
        if not (cycle.chunked_encoding and piece) or cycle.response_complete:
            raise RuntimeError("a piece outside of a chunked answer")
        cycle.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        return True

    return at_once
