"""Named registries: one decorator to add an entry, one look-up that answers typos."""

from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Generic, TypeVar

from nas.errors import unknown_name

Entry = TypeVar("Entry")


class Registry(Generic[Entry]):
    """Maps names to entries (operations, spaces, samplers, data sets).

    A name can be registered once; looking up an unknown one raises a `UserError` that lists the
    names there are and the nearest.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """Decorator that adds what it decorates under `name`.

        Raises:
            ValueError: `name` is taken.
        """
        if name in self._entries:
            raise ValueError(f"{self.kind} '{name}' is registered twice")

        def add(entry: Entry) -> Entry:
            self._entries[name] = entry
            return entry

        return add

    def get(self, name: str, key: str | None = None) -> Entry:
        """Returns the entry called `name`; `key` is the config key to name in the error.

        Raises:
            UserError: there is none.
        """
        if name not in self._entries:
            raise unknown_name(self.kind, name, self._entries, key)
        return self._entries[name]

    def names(self, pattern: str = "*") -> list[str]:
        """Returns the sorted names that match a shell-style `pattern`."""
        return sorted(name for name in self._entries if fnmatchcase(name, pattern))

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)
