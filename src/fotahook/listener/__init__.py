"""Receives it: a message answered with 2xx is on disk; handlers run from there."""
