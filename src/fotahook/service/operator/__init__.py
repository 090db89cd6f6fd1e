"""fotahook's own API, `/v1/…`."""
