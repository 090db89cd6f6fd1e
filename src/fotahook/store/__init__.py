"""Keeps it: the Protocol that the other rooms speak, and the stores that fulfil it."""
