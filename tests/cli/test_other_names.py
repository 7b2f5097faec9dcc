"""What settings, options and values are called elsewhere leads to what they are called here."""

import pytest

from conf import outline
from conf.arguments import resumes
from conf.help import PAGES
from conf.messages import known_keys
from conf.other_names import OPTIONS, SETTINGS


def test_each_leads_to_a_setting_of_some_program() -> None:
    chosen = {"search": ("space=darts",)}
    known = {key for program in PAGES for key in known_keys(program, chosen.get(program, ()))}
    known |= set(known_keys("search"))
    assert {key for keys in SETTINGS.values() for key in keys} <= known
    assert not SETTINGS.keys() & known  # what there is needs no other name


@pytest.mark.parametrize("group", OPTIONS)
def test_each_leads_to_an_option(group: str) -> None:
    assert set(OPTIONS[group].values()) <= set(outline.options(group))
    assert not OPTIONS[group].keys() & set(outline.options(group))


def test_resuming_is_asked_for_by_any_word_for_true() -> None:
    assert all(resumes(["epochs=3", f"resume={word}"]) for word in ("true", "True", "yes", "1"))
    assert not any(resumes([argument]) for argument in ("resume=false", "resume=no", "epochs=1"))
