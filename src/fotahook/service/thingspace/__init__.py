"""ThingSpace's API: callbacks, tokens and sessions."""
