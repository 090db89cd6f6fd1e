"""Says it: the SDK. _flow decides, _sync and _async do the I/O."""
