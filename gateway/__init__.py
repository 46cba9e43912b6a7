"""The shell of Meterhouse: it reads, lets `policies` and `billing` decide, and writes."""

__version__ = "0.1.0"
