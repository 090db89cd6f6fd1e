"""Records the result of each device's upgrade, from ThingSpace's callbacks."""
