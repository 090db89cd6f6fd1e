"""Puts it together: the command line; the only room that reads the environment and the clock."""
