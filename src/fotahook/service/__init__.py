"""Hears it: ThingSpace's calls and our own API over HTTP."""

from .access import SCOPES
from .app import build_app
from .provision import (
    DEV_CLIENT,
    DEV_USER,
    create_client,
    create_user,
    drop_client,
    drop_user,
    provision_dev,
    withdraw_dev,
)
from .settings import Settings

__all__ = [
    "DEV_CLIENT",
    "DEV_USER",
    "SCOPES",
    "Settings",
    "build_app",
    "create_client",
    "create_user",
    "drop_client",
    "drop_user",
    "provision_dev",
    "withdraw_dev",
]
