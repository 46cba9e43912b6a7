"""Backends: how we reach them, what they say, how they fare.

transport -> pool -> connection -> answer is the way of one request; endpoint and failures are its
values. dialect says what a backend's language has to tell us, one file a language; sse cuts
streams into events; health keeps load, latency and breakers.
"""
