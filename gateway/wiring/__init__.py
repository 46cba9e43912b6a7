"""The one composition root: opens every connection, builds each object once, closes in reverse.

A module for each kind of process, because a process pays in memory and start for all it imports.
"""
