"""A campaign's messages, generated from a seed."""
