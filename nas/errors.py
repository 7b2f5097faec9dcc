"""The one exception that a user's mistake raises, and the nearest match for a misspelt name."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake that the user can mend: the entry points print it as one line and exit with 1.

    The message says what is wrong, where (config key or file) and what is allowed.
    """


def unknown_name(kind: str, name: str, allowed: Iterable[str], key: str | None = None) -> UserError:
    """Builds the error for a `name` that is not in `allowed`, with the nearest match if any.

    Args:
        kind: What was looked up, in the singular ("operation", "sampler").
        name: What the user wrote.
        allowed: The names that exist.
        key: The config key that holds the name, if it comes from one.
    """
    names = sorted(allowed)
    return UserError(f"{listing_allowed(kind, name, names, key)}{did_you_mean(name, names)}")


def listing_allowed(kind: str, name: str, allowed: Iterable[str], key: str | None = None) -> str:
    """The same without the nearest match, as text."""
    where = f" ({key})" if key else ""
    return f"unknown {kind} '{name}'{where}: allowed are {', '.join(sorted(allowed))}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest of the known names, as a question; empty where none is near."""
    return as_question(nearest(name, known))


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The nearest of the known names; None where none is near."""
    by_lower = {known_name.lower(): known_name for known_name in known}
    close = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[close[0]] if close else None


def as_question(nearest: str | None) -> str:
    """What may have been meant, to be put at the end of an error; empty for None."""
    return f"; did you mean '{nearest}'?" if nearest else ""


def reason(error: Exception) -> str:
    """What is wrong, without the path, which an `OSError` puts into its text."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
