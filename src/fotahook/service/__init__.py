"""Hears it: ThingSpace's calls and our own API over HTTP."""
