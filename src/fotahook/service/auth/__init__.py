"""Who may call the service: clients, users, passwords, lockout and rate limits."""
