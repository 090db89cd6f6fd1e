"""`fotahook simulate`: sends the messages of a campaign."""
