"""Benchmarks. `python -m bench` runs every section, `python -m bench NAME` one of them."""

import os

# What is measured loads bytecode, as an installed program does, even where Python is told to keep none.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
