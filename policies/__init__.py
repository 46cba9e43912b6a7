"""May it, and where? Pure: the standard library and msgspec, no I/O, no clock, no chance.

document, fields     a policy as written
compile              the documents above a key -> one EffectivePolicy; the tightest wins
ask, candidates      one request, and the places it could go
filters, rank        who may serve it, and in what order
route, refusal       the Plan, or the one Deny the caller reads
failover, breaker    what follows a failed attempt, and when a backend is left alone
latency              percentiles of the last minute
limits, budgets      the executable model of the scripts that take limits and place holds
explain              all of it in plain data

README.md has the words, the merge rule of every field and what always holds.
"""
