"""`fotahook listen`: runs a listener."""
