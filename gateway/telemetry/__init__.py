"""What is seen of the house from outside: metrics, traces, the access log.

`record.RequestRecord` goes in at the end of each request, through `service.Telemetry.finish`.
`instruments` and `genai` book it on `metrics`; `snapshots` carries the figures of all processes to
whoever shows them (`prometheus`); `spans` and `export` serve a collector; `accesslog` writes lines.
Every name is in `names`. No content of any request or answer comes this far.
"""
