"""`fotahook doctor`: checks a callback URL before it is registered."""
