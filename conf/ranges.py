"""Checks that several schemas share."""


def at_least(section: str, config: object, **lowest: float) -> None:
    for name, value in lowest.items():
        found = getattr(config, name)
        if not found >= value:
            key = f"{section}.{name}" if section else name
            raise ValueError(f"{key} is {found}: must be at least {value}")
