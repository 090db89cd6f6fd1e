"""What became of each device's upgrade, by ThingSpace's callbacks."""
