"""The commands that programs tell a user to go on with."""

import sys

import pytest

from nas.commands import command_for


@pytest.mark.parametrize(
    ("started", "expected"),
    [
        ("search.py", "python retrain.py"),
        ("/somewhere/bin/nas-search", "nas-retrain"),
        ("", "python retrain.py"),
    ],
)
def test_a_command_is_like_the_one_that_was_given(
    monkeypatch: pytest.MonkeyPatch, started: str, expected: str
) -> None:
    monkeypatch.setattr(sys, "argv", [started])
    assert command_for("retrain") == expected
