"""The version that every request of ours names; the same as the distribution's (a test compares them)."""

VERSION = "0.1.0"
