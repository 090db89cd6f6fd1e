"""The HTTP service: ThingSpace's calls and our own API, over a store."""

from .app import build_app
from .auth.credentials import (
    DEV_CLIENT,
    DEV_USER,
    SCOPES,
    create_credential,
    grant,
    provision_dev,
    revoke,
    withdraw_dev,
)
from .auth.passwords import PasswordCost
from .context import Check, Settings
from .health import HEALTH_PATHS
from .metrics import Metrics

__all__ = [
    "DEV_CLIENT",
    "DEV_USER",
    "HEALTH_PATHS",
    "SCOPES",
    "Check",
    "Metrics",
    "PasswordCost",
    "Settings",
    "build_app",
    "create_credential",
    "grant",
    "provision_dev",
    "revoke",
    "withdraw_dev",
]
