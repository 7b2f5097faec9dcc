"""Nested settings by dotted key."""

from nas.nested import flat, flat_texts


def test_an_empty_section_is_a_value() -> None:
    nested = {"a": {"b": {"c": 1, "d": {}}}, "e": [{}]}
    assert flat(nested) == {"a.b.c": 1, "a.b.d": {}, "e": [{}]}
    assert flat({}) == {}


def test_settings_are_written_as_on_a_command_line() -> None:
    nested = {"seed": 1, "data": {"mean": [0.5, None], "path": None, "flip": True}, "empty": {}}
    assert flat_texts(nested) == {
        "seed": "1",
        "data.mean": "[0.5, null]",
        "data.path": "null",
        "data.flip": "true",
        "empty": "{}",
    }
