"""The options that `from_environment` reads from environment variables."""

import math
import os
from collections.abc import Mapping
from urllib.parse import quote

from ..contract.auth import SessionCredentials, ThingspaceOauthCredentials, VZM2mTokenCredentials
from ..contract.servers import Environment, environment_named
from ._settings import ClientOptions


def environment_options(dotenv_path: str | None, overrides: ClientOptions) -> ClientOptions:
    """The options in the environment, overridden by those given; ValueError names a variable that is not valid."""
    variables = {**_dotenv(dotenv_path), **os.environ}
    found: ClientOptions = {
        "thingspace_oauth_credentials": _oauth(variables),
        "vz_m2m_token_credentials": _session(variables),
        "base_url": variables.get("THINGSPACE_BASE_URL") or None,
    }
    if variables.get("TIMEOUT"):
        found["timeout"] = _number("TIMEOUT", variables["TIMEOUT"])
    if variables.get("MAX_RETRIES"):
        found["max_retries"] = _whole_number("MAX_RETRIES", variables["MAX_RETRIES"])
    if variables.get("PROXY_ADDRESS"):
        found["proxy"] = _proxy(variables)
    # With an override the variable may have any value: it may belong to another program.
    if variables.get("ENVIRONMENT") and "environment" not in overrides:
        found["environment"] = _environment(variables["ENVIRONMENT"])
    return {**found, **overrides}


def _dotenv(path: str | None) -> Mapping[str, str]:
    """The variables of a `.env` file; none if python-dotenv is not installed."""
    try:
        from dotenv import dotenv_values, find_dotenv
    except ImportError:
        if path is not None:
            raise ImportError("dotenv_path= needs python-dotenv: pip install python-dotenv") from None
        return {}
    values = dotenv_values(path or find_dotenv(usecwd=True))
    return {name: value for name, value in values.items() if value is not None}


def _oauth(variables: Mapping[str, str]) -> ThingspaceOauthCredentials | None:
    key, secret = (variables.get(f"THINGSPACE_OAUTH_OAUTH_CLIENT_{part}") for part in ("ID", "SECRET"))
    if not key or not secret:
        return None
    name = "THINGSPACE_OAUTH_OAUTH_CLOCK_SKEW"
    skew = _number(name, variables[name]) if variables.get(name) else 0
    return ThingspaceOauthCredentials(key, secret, oauth_clock_skew=skew)


def _session(variables: Mapping[str, str]) -> SessionCredentials | VZM2mTokenCredentials | None:
    """User name and password take precedence: they can renew a session."""
    username, password = variables.get("VZ_M2M_USERNAME"), variables.get("VZ_M2M_PASSWORD")
    if username and password:
        return SessionCredentials(username, password)
    token = variables.get("VZ_M2M_TOKEN_VZ_M2M_TOKEN")
    return VZM2mTokenCredentials(token) if token else None


def _proxy(variables: Mapping[str, str]) -> str:
    """The official SDK's four variables as one URL."""
    scheme, separator, address = variables["PROXY_ADDRESS"].rstrip("/").rpartition("://")
    username, password = variables.get("PROXY_USERNAME"), variables.get("PROXY_PASSWORD")
    user = f"{quote(username, safe='')}:{quote(password or '', safe='')}@" if username else ""
    port = f":{variables['PROXY_PORT']}" if variables.get("PROXY_PORT") else ""
    return f"{scheme if separator else 'http'}://{user}{address}{port}"


def _environment(name: str) -> Environment:
    try:
        return environment_named(name)
    except ValueError as error:
        raise ValueError(f"ENVIRONMENT: {error}") from None


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a number")
    return value


def _whole_number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name} must be a whole number") from None
