"""The listener under other protocols than ASGI."""
