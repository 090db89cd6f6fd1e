"""Sends it on: policy decides, the sender makes one attempt, the dispatcher drives the lanes."""
