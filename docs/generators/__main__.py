"""Writes the OpenAPI description that the service ships: `make openapi`."""

from pathlib import Path
from typing import Final

from .openapi import text

FILE: Final = Path(__file__).parents[2] / "src/fotahook/service/openapi.json"

FILE.write_bytes(text())
