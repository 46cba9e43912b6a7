"""The crash matrix: where a process is struck, by what, and while it does what.

The points are told one by one in deploy/decisions, with what is billed then and who recovers.
"""

from dataclasses import dataclass
from typing import Final, Literal

Fault = Literal["kill", "cancel", "stop", "request lost", "reply lost"]
FAULTS: Final[tuple[Fault, ...]] = ("kill", "cancel", "stop", "request lost", "reply lost")
_ANY: Final[tuple[Fault, ...]] = ("kill", "cancel", "stop")
_NO_TASK: Final[tuple[Fault, ...]] = ("kill", "stop")  # a thread or a callback cannot be cancelled
_CALL: Final[tuple[Fault, ...]] = ("kill", "stop", "request lost", "reply lost")

# open: the budgets serve while the store does not answer; away: and it is out of reach while the
# requests are asked, until the strike; back: until they have their answers.
Store = Literal["", "open", "away", "back"]


@dataclass(frozen=True)
class Point:
    """`kind` of request goes through it; the `nth` passage is struck, so that others are whole."""

    name: str
    process: Literal["worker", "jobs"]
    kind: str
    faults: tuple[Fault, ...]
    crash: str  # of the table
    nth: int = 2
    # For jobs: what must have happened before to a worker (kill, lose; forlorn: a lease of it is
    # long overdue) or to the store (wipe, and wipe alive: under requests that go on).
    after: str = ""
    store: Store = ""
    estimates: int = 2  # at most, when the process is killed: of those in flight
    phantoms: int = 0  # of them, at most so many that had not left yet
    leased: bool = False  # the budgets serve from leases, which the worker has before the strike

    @property
    def failpoint(self) -> str:
        return self.name.partition(",")[0]


@dataclass(frozen=True)
class Call:
    """One round trip, told by the first bytes that only its request has."""

    name: str
    line: Literal["worker_store", "jobs_store", "jobs_sql", "backend"]
    match: bytes
    kind: str
    faults: tuple[Fault, ...]
    crash: str
    first: bytes = b""  # it counts from these bytes on
    after: str = ""
    store: Store = ""
    estimates: int = 2
    phantoms: int = 0
    leased: bool = False


@dataclass(frozen=True)
class Cell:
    point: Point | Call
    fault: Fault

    @property
    def most_estimates(self) -> int:
        """A process that goes on knows what its requests used; so does the ledger's evidence."""
        if self.point.after in {"kill", "lose"}:
            return 3
        of_worker = self.point.process == "worker" if isinstance(self.point, Point) else True
        return self.point.estimates if self.fault == "kill" and of_worker else 0

    def is_on(self, database: str) -> bool:
        return not self.meaningless_on(database)

    def meaningless_on(self, database: str) -> str:
        """Why it is not played there, by the letter of the table's legend; empty: it is."""
        a_call = isinstance(self.point, Call)
        if isinstance(self.point, Call) and self.point.line == "jobs_sql" and database == "sqlite":
            return "d"
        if self.fault in self.point.faults:
            return ""
        if self.fault == "cancel":
            return "c" if a_call else "a"
        return "b"

    @property
    def name(self) -> str:
        return f"{self.point.name} x {self.fault}"


POINTS: Final = (
    Point("admit.begins", "worker", "plain", _ANY, "C0", estimates=1),
    Point("admit.granted", "worker", "plain", _ANY, "C2", estimates=1),
    Point("admit.intended", "worker", "stream", _ANY, "C3", estimates=1),
    Point("forward.connected", "worker", "plain", _ANY, "C4", estimates=1),
    Point("forward.marked", "worker", "plain", _ANY, "C4", phantoms=1),
    Point("transport.written", "worker", "stream", _ANY, "C5"),
    Point("forward.answered", "worker", "stream", _ANY, "C5"),
    Point("forward.refused", "worker", "retried", _ANY, "C5", nth=1),
    Point("hedge.begins", "worker", "hedged", _ANY, "C5", nth=1),
    Point("hedge.decided", "worker", "hedged stream", _ANY, "C5", nth=1, estimates=3),
    Point("relay.piece, hedged", "worker", "hedged stream", _NO_TASK, "C6", nth=4, estimates=3),
    Point("relay.whole", "worker", "plain", _ANY, "C6"),
    Point("relay.replied", "worker", "plain", _ANY, "C7"),
    Point("relay.begins", "worker", "stream", _ANY, "C6"),
    Point("relay.piece", "worker", "stream", _NO_TASK, "C6", nth=12),
    Point("relay.checkpointed", "worker", "long", _NO_TASK, "C6", nth=2),
    Point("relay.metered", "worker", "stream", _ANY, "C7"),
    Point("relay.ended", "worker", "stream", _ANY, "C7"),
    Point("settle.begins", "worker", "plain", _ANY, "C7"),
    Point("settle.counted", "worker", "counted", _ANY, "C7"),
    Point("settle.spooled", "worker", "stream", _ANY, "C8", estimates=1),
    Point("settle.answered", "worker", "plain", _NO_TASK, "C10", estimates=1),
    Point("release.spooled", "worker", "dead", _ANY, "C3", estimates=0),
    Point("release.answered", "worker", "dead", _ANY, "C3", estimates=0),
    Point("admit.granted, keyed", "worker", "keyed", _ANY, "C2", estimates=1),
    Point("admit.intended, keyed", "worker", "keyed", _ANY, "C3", estimates=1),
    Point("forward.marked, keyed", "worker", "keyed", _ANY, "C4", phantoms=1),
    Point("relay.whole, keyed", "worker", "keyed", _ANY, "C6"),
    Point("settle.spooled, keyed", "worker", "keyed", _ANY, "C8", estimates=1),
    Point("settle.begins, kept", "worker", "kept", _ANY, "C7"),
    Point("sliced.piece", "worker", "sliced", _ANY, "C6", nth=64),
    Point("relay.ended, sliced", "worker", "sliced", _ANY, "C7"),
    Point("shadow.begins", "worker", "shadowed", _ANY, "C0", estimates=5),
    Point("shadow.admitted", "worker", "shadowed", _ANY, "C3", estimates=5),
    Point("shadow.answered", "worker", "shadowed", _ANY, "C5", estimates=5),
    Point("shadow.heard", "worker", "shadowed", _ANY, "C7", estimates=5),
    Point("settle.spooled, shadowed", "worker", "shadowed", _ANY, "C8", nth=4, estimates=5),
    Point("upkeep.extends", "worker", "lasting", _NO_TASK, "C6", nth=1),
    Point("spool.turns", "worker", "plain", _ANY, "C19", nth=1),
    Point("spool.syncs", "worker", "plain", _NO_TASK, "C19", nth=1),
    Point("refresh.loaded", "worker", "stream", _NO_TASK, "C18", nth=1),
    Point("outage.intended", "worker", "plain", _ANY, "C3", nth=1, store="away", estimates=1),
    Point("forward.marked, open", "worker", "plain", _ANY, "C4", store="away", phantoms=1),
    Point("relay.piece, open", "worker", "stream", _NO_TASK, "C6", nth=12, store="away"),
    Point("settle.spooled, open", "worker", "stream", _ANY, "C8", store="away", estimates=1),
    Point("settle.answered, open", "worker", "plain", _NO_TASK, "C9", store="away", estimates=1),
    Point("settle.resent", "worker", "plain", _NO_TASK, "C10", nth=1, store="back", estimates=0),
    Point("leases.asked", "worker", "plain", _NO_TASK, "C22", nth=1),
    Point("leases.asked, renewed", "worker", "plain", _NO_TASK, "C22"),
    Point("leases.granted", "worker", "plain", _NO_TASK, "C22", nth=1),
    Point("leases.granted, renewed", "worker", "plain", _NO_TASK, "C22"),
    Point("leases.written", "worker", "plain", _NO_TASK, "C22", nth=1),
    Point("outage.intended, leased", "worker", "plain", _ANY, "C3", nth=1, store="away",
          estimates=1, leased=True),
    Point("forward.marked, leased", "worker", "plain", _ANY, "C4", store="away", phantoms=1,
          leased=True),
    Point("relay.piece, leased", "worker", "stream", _NO_TASK, "C6", nth=12, store="away",
          leased=True),
    Point("relay.metered, leased", "worker", "stream", _ANY, "C7", store="away", leased=True),
    Point("settle.spooled, leased", "worker", "stream", _ANY, "C8", store="away", estimates=1,
          leased=True),
    Point("settle.answered, leased", "worker", "plain", _NO_TASK, "C9", store="away", estimates=1,
          leased=True),
    Point("settle.resent, leased", "worker", "plain", _NO_TASK, "C10", nth=1, store="back",
          estimates=0, leased=True),
    Point("leases.given_back", "worker", "plain", _NO_TASK, "C23", nth=1, store="back",
          estimates=0, leased=True),
    Point("drain.taken", "jobs", "plain", _ANY, "C10", nth=1),
    Point("sql.commits", "jobs", "plain", _NO_TASK, "C10 C12", nth=1),
    Point("sql.committed", "jobs", "plain", _NO_TASK, "C11", nth=1),
    Point("drain.booked", "jobs", "plain", _ANY, "C11", nth=1),
    Point("drain.done", "jobs", "plain", _ANY, "C11", nth=1),
    Point("replay.adopted", "jobs", "lasting", _ANY, "C6", nth=1, after="kill"),
    Point("replay.handed_in", "jobs", "lasting", _ANY, "C9", nth=1, after="kill"),
    Point("replay.booked", "jobs", "lasting", _ANY, "C11", nth=1, after="kill"),
    Point("replay.discarded", "jobs", "lasting", _ANY, "C11", nth=1, after="kill"),
    Point(
        "replay.handed_in, open", "jobs", "lasting", _ANY, "C9", nth=1, after="kill", store="away"
    ),
    Point(
        "replay.discarded, open", "jobs", "lasting", _ANY, "C11", nth=1, after="kill", store="away"
    ),
    Point("replay.adopted, leased", "jobs", "lasting", _ANY, "C6", nth=1, after="kill",
          store="away", leased=True),
    Point("replay.handed_in, leased", "jobs", "lasting", _ANY, "C9", nth=1, after="kill",
          store="away", leased=True),
    Point("replay.booked, leased", "jobs", "lasting", _ANY, "C23", nth=1, after="kill",
          store="away", leased=True),
    Point("reap_leases.found", "jobs", "plain", _ANY, "C23", nth=1, after="forlorn"),
    Point("reap_leases.ended", "jobs", "plain", _ANY, "C23", nth=1, after="forlorn"),
    Point("reap.leased", "jobs", "lasting", _ANY, "C6", nth=1, after="lose"),
    Point("reap.decided", "jobs", "lasting", _ANY, "C6", nth=1, after="lose"),
    Point("reap.ended", "jobs", "lasting", _ANY, "C9", nth=1, after="lose"),
    Point("rebuild.begun", "jobs", "plain", _ANY, "C17", nth=1, after="wipe"),
    Point("rebuild.closed", "jobs", "plain", _ANY, "C17", nth=1, after="wipe"),
    Point("rebuild.opened", "jobs", "plain", _ANY, "C17", nth=1, after="wipe"),
    Point("rebuild.told", "jobs", "plain", _ANY, "C17", nth=1, after="wipe"),
    Point("rebuild.placed", "jobs", "enduring", _ANY, "C17", nth=1, after="wipe alive"),
    Point("rebuild.counted", "jobs", "plain", _ANY, "C17", nth=1, after="wipe"),
    Point("rebuild.held", "jobs", "enduring", _ANY, "C17", nth=1, after="wipe alive"),
    Point("rebuild.told, open", "jobs", "plain", _ANY, "C17", nth=1, after="wipe", store="away"),
    Point("rebuild.counted, open", "jobs", "plain", _ANY, "C17", nth=1, after="wipe", store="away"),
    Point("rebuild.told, leased", "jobs", "enduring", _ANY, "C17", nth=1, after="wipe alive",
          store="away", leased=True),
    Point("rebuild.placed, leased", "jobs", "enduring", _ANY, "C17", nth=1, after="wipe alive",
          store="away", leased=True),
    Point("rebuild.counted, leased", "jobs", "plain", _ANY, "C17", nth=1, after="wipe",
          store="away", leased=True),
)  # fmt: skip
# Where a row of the table says nothing: by which test instead.
STRUCK_APART: Final = {
    # A worker passes them once a minute.
    "spool.rotates": "test_spool_kills.py: kill, stop",
    "prune.deletes": "test_spool_kills.py: kill",
    "sql.commits, admin": "test_admin_kills.py: kill (C13, C15, C16)",
    "sql.committed, admin": "test_admin_kills.py: kill (C13, C15, C16)",
}
# What no point of one process can show.
NO_POINT: Final = {
    "C14": "integration/test_windows_turn.py: a window ends with open holds",
    "C20": "integration/test_store_loss.py: old data; test_store_failover.py: failover",
    "C21": "test_zombies.py: its hold was ended by another machine meanwhile",
    "everything at once": "test_everything.py: kill, twenty times",
    "store and spool lost": "test_store_and_spool_lost.py",
}
CALLS: Final = (
    Call("admit.lua", "worker_store", b"{admit}", "plain", _CALL, "C1"),
    Call("settle.lua", "worker_store", b"{settle}", "stream", _CALL, "C9"),
    Call("slice.lua", "worker_store", b"{slice}", "sliced", _CALL, "C6"),
    Call("release.lua", "worker_store", b"{release}", "dead", _CALL, "C1", estimates=0),
    Call("extend.lua", "worker_store", b"{extend}", "lasting", _CALL, "C6"),
    Call("backend", "backend", b"POST /v1/", "plain", _CALL, "C4 C5", phantoms=1),
    Call("backend, stream", "backend", b"POST /v1/", "stream", _CALL, "C5", phantoms=1),
    Call("admit.lua, keyed", "worker_store", b"{admit}", "keyed", _CALL, "C1"),
    Call("settle.lua, keyed", "worker_store", b"{settle}", "keyed", _CALL, "C9"),
    Call("keep.lua", "worker_store", b"{keep}", "kept", _CALL, "C8"),
    Call("admit.lua, open", "worker_store", b"{admit}", "plain", _CALL, "C1", store="open"),
    Call("settle.lua, open", "worker_store", b"{settle}", "stream", _CALL, "C9", store="back"),
    Call("lend.lua", "worker_store", b"{lend}", "plain", _CALL, "C22"),
    Call("settle.lua, leased", "worker_store", b"{settle}", "stream", _CALL, "C9", store="back",
         leased=True),
    Call("take_back.lua", "worker_store", b"{take_back}", "plain", _CALL, "C23", store="back",
         estimates=0, leased=True),
    Call("journal read", "jobs_store", b"XREADGROUP", "plain", _CALL, "C10"),
    Call("journal done", "jobs_store", b"XACK", "plain", _CALL, "C11"),
    Call("replay's settle", "jobs_store", b"{settle}", "lasting", _CALL, "C9", after="kill"),
    Call("reaper's settle", "jobs_store", b"{settle}", "lasting", _CALL, "C9", after="lose"),
    Call(
        "replay's settle, open", "jobs_store", b"{settle}", "lasting", _CALL, "C9", after="kill",
        store="away",
    ),
    Call("replay's settle, leased", "jobs_store", b"{settle}", "lasting", _CALL, "C9", after="kill",
         store="away", leased=True),
    Call("replay's take_back", "jobs_store", b"{take_back}", "lasting", _CALL, "C23", after="kill",
         store="away", leased=True),
    Call("reaper's take_back", "jobs_store", b"{take_back}", "plain", _CALL, "C23",
         after="forlorn"),
    Call("rebuild's lend.lua", "jobs_store", b"{lend again}", "enduring", _CALL, "C17",
         after="wipe alive", store="away", leased=True),
    Call("close_epoch.lua", "jobs_store", b"{close_epoch}", "plain", _CALL, "C17", after="wipe"),
    Call("restore.lua", "jobs_store", b"{restore}", "enduring", _CALL, "C17", after="wipe alive"),
    Call("cut.lua", "jobs_store", b"{cut}", "plain", _CALL, "C17", after="wipe"),
    Call("correct.lua", "jobs_store", b"{correct}", "plain", _CALL, "C17", after="wipe"),
    Call("open_epoch.lua", "jobs_store", b"{open_epoch}", "plain", _CALL, "C17", after="wipe"),
    Call(
        "booking", "jobs_sql", b"COPY usage_rows", "plain", _CALL, "C10"
    ),
    Call(
        "commit", "jobs_sql", b"COMMIT", "plain", _CALL, "C11", first=b"COPY usage_rows"
    ),
)  # fmt: skip

CELLS: Final = tuple(
    Cell(point, fault) for point in (*POINTS, *CALLS) for fault in FAULTS if fault in point.faults
)

# What an ordinary run plays: one cell of each kind of evidence.
SLICE: Final = (
    "admit.granted x kill",
    "forward.marked x kill",
    "relay.checkpointed x kill",
    "relay.replied x kill",
    "relay.ended x kill",
    "settle.spooled x kill",
    "hedge.decided x kill",
    "relay.begins x cancel",
    "admit.lua x reply lost",
    "settle.lua x reply lost",
    "admit.lua, keyed x reply lost",
    "settle.spooled, open x kill",
    "settle.spooled, leased x kill",
    "drain.booked x kill",
    "replay.handed_in x kill",
    "reap.decided x kill",
    "commit x reply lost",
)
