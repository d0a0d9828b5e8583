"""Edges that receive telemetry. No Django here: a collector is a small process beside the web server.

One straight line: http_server / grpc_server -> ingest (admission, answer) -> decode (wire, dialects)
-> writer (one transaction for many requests) -> answer after COMMIT.
"""
