"""The shared store: a PostgreSQL server."""
