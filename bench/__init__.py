"""Benchmarks. `python -m bench` runs every section, `python -m bench NAME` one of them."""
