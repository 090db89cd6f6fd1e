"""The HTTP service: ThingSpace's calls and our own API, over a store."""

from .app import build_app, split_metrics
from .context import Check, Settings
from .credentials import (
    DEV_CLIENT,
    DEV_USER,
    SCOPES,
    By,
    PasswordCost,
    create_credential,
    grant,
    list_credentials,
    provision_dev,
    revoke,
    rotate_secret,
    withdraw_dev,
)
from .health import HEALTH_PATHS
from .metrics import Metrics
from .routing import Call, Endpoint

__all__ = [
    "DEV_CLIENT",
    "DEV_USER",
    "HEALTH_PATHS",
    "SCOPES",
    "By",
    "Call",
    "Check",
    "Endpoint",
    "Metrics",
    "PasswordCost",
    "Settings",
    "build_app",
    "create_credential",
    "grant",
    "list_credentials",
    "provision_dev",
    "revoke",
    "rotate_secret",
    "split_metrics",
    "withdraw_dev",
]
