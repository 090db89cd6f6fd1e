"""`fotahook admin`: clients, users and store maintenance."""
