"""Nested settings by dotted key, as they are given on a command line."""

from collections.abc import Mapping
from typing import Any


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key; an empty section is a value."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        is_section = isinstance(value, Mapping) and value
        found |= flat(value, f"{prefix}{key}.") if is_section else {f"{prefix}{key}": value}
    return found


def flat_texts(settings: Mapping[str, Any]) -> dict[str, str]:
    """Nested settings as texts by dotted key, written as on the command line."""
    return {key: _text(value) for key, value in flat(settings).items()}


def _text(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return str(value)
