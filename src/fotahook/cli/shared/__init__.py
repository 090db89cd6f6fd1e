"""Shared by the commands: flags, output, errors."""
