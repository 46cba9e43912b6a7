"""The hot path: one request from first byte to settlement. Read `request.serve` first.

endpoints     which surface was called; bytes in, bytes out
authenticate  key -> Principal, from the snapshot; no I/O
envelope      what we read of the body; the rest stays bytes
count         how many tokens it can be, and how many it probably is
quote         candidates -> unit prices and worst cases; policies.route -> Plan
admit         limits taken and holds placed on every level, one round trip -> grant
turns, desk   who waits for a backend that is full, and who is next
forward       drive the plan: deadlines, retries; the spool's dispatch mark
relay         bytes to the client as they come; usage found; hang-up noticed
settle        usage -> charge -> spool, counters, journal, one round trip
snapshot, refresh   immutable configuration, swapped when it changes
"""
