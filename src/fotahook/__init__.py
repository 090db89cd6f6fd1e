"""fotahook: Software Management Callbacks V2, whole: the SDK, the service, the listener."""
