"""Shows it: a static page over the public HTTP API."""
