"""Runs an ASGI app on uvicorn: sockets, TLS, connection limits, signals and logging."""
