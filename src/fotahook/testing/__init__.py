"""Lends it: the sandbox and what tests of fotahook's users need."""
