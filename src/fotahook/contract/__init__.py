"""What exists on the wire: models, errors, calls, auth rules, signing, messages, addresses. Pure, no I/O."""
