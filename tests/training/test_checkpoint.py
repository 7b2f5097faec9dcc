"""Checkpoints: written whole or not at all; what is damaged or foreign is refused, never run."""

import errno
import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch

from nas.errors import UserError
from nas.training.checkpoint import (
    PREVIOUS,
    check_same_settings,
    last_checkpoint,
    load_checkpoint,
    load_newest,
    restore,
    rng_state,
    save_checkpoint,
    saved_overrides,
    set_rng_state,
)

pytestmark = pytest.mark.faults


def state() -> dict[str, Any]:
    return {
        "weights": {"conv": torch.arange(300.0), "steps": torch.tensor(7)},
        "settings": {"seed": 1, "sizes": [1, 2], "none": None, "name": "x"},
    }


def same(loaded: dict[str, Any], saved: dict[str, Any]) -> bool:
    equal = all(torch.equal(loaded["weights"][k], v) for k, v in saved["weights"].items())
    return equal and loaded["settings"] == saved["settings"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = last_checkpoint(tmp_path)
    save_checkpoint(path, "search", state())
    return path


def refusal(path: Path, kind: str = "search") -> str:
    """The one line that loading `path` is refused with."""
    with pytest.raises(UserError) as caught:
        load_checkpoint(path, kind)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_state_comes_back(path: Path) -> None:
    assert same(load_checkpoint(path, "search"), state())
    assert list(path.parent.iterdir()) == [path]


def full_disk() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def as_the_system_says(content: object, file: BinaryIO) -> None:
    file.write(b"half")
    raise full_disk()


def as_torch_says(content: object, file: BinaryIO) -> None:
    file.write(b"half")
    try:
        raise full_disk()
    except OSError:
        raise RuntimeError("[enforce fail at inline_container.cc] unexpected pos 704")  # noqa: B904


@pytest.mark.parametrize("save", [as_the_system_says, as_torch_says])
def test_full_disk_leaves_the_old_checkpoint_and_nothing_else(
    save: Callable[..., None], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(UserError, match=r"cannot write .*No space left") as caught:
        save_checkpoint(path, "search", {})
    assert "\n" not in str(caught.value)
    assert list(path.parent.iterdir()) == [path]
    assert same(load_checkpoint(path, "search"), state())


def test_state_that_cannot_be_pickled_leaves_the_old_checkpoint(path: Path) -> None:
    with pytest.raises((AttributeError, pickle.PicklingError)):
        save_checkpoint(path, "search", {"function": lambda: None})
    assert list(path.parent.iterdir()) == [path]
    assert same(load_checkpoint(path, "search"), state())


def test_missing_checkpoint_is_named(tmp_path: Path) -> None:
    assert "nothing to resume" in refusal(tmp_path / "none.pt")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_truncated_checkpoint_is_refused(share: float, path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "damaged" in refusal(path)


def test_flipped_bit_is_refused_or_changes_nothing(path: Path) -> None:
    whole, pick, refused = path.read_bytes(), random.Random(0), 0
    for position in pick.sample(range(len(whole)), 250):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << pick.randrange(8)
        path.write_bytes(bytes(damaged))
        try:
            loaded = load_checkpoint(path, "search")
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert same(loaded, state())
    assert refused > 100


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("form", ["torch", "torch, old format", "pickle"])
def test_code_in_a_checkpoint_is_not_run(form: str, tmp_path: Path) -> None:
    path, touched = tmp_path / "last.pt", tmp_path / "touched"
    content = {"format_version": 1, "kind": "search", "x": Touch(touched)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch")
    assert "damaged or not a checkpoint" in refusal(path)
    assert not touched.exists()


@pytest.mark.parametrize("content", [[1, 2], torch.ones(3), {"a": 1}, {"kind": "search"}, 3, None])
def test_foreign_content_is_refused(content: object, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    torch.save(content, path)
    refusal(path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    for content in (b"", b"text", b"PK\x03\x04", bytes(range(256))):
        path.write_bytes(content)
        refusal(path)
    refusal(tmp_path)


def test_checkpoint_of_the_other_kind_is_refused(path: Path) -> None:
    assert "kind 'search', not of a retrain" in refusal(path, "retrain")


def test_checkpoint_of_a_future_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    torch.save({"format_version": 2, "kind": "search"}, path)
    assert "format version 2, this release reads version 1" in refusal(path)


def test_settings_that_differ_are_named_with_both_values(path: Path) -> None:
    saved = {"seed": 1, "data": {"name": "digits", "path": "a"}, "tuple": [1, 2], "gone": 3}
    present = {"seed": 2, "data": {"name": "digits", "path": "b"}, "tuple": [1, 2]}
    with pytest.raises(UserError) as caught:
        check_same_settings(path, saved, present, frozenset({"data.path"}))
    assert f"{path} with other settings: gone was 3, is None, seed was 1, is 2;" in str(
        caught.value
    )
    assert "data" not in str(caught.value).removeprefix(f"cannot resume {path}")
    check_same_settings(path, saved, present, frozenset({"data.path", "seed", "gone"}))


def test_settings_of_a_newer_release_may_be_there_unless_they_are_asked_for(path: Path) -> None:
    saved = {"seed": 1, "bilevel": {"name": "first_order"}, "new": {}}
    present = {"seed": 1, "bilevel": {"name": "first_order", "groups": 1}, "new": {"a": 1}}
    check_same_settings(path, saved, present, frozenset(), ["epochs=3", "news.a=1"])
    for override in ("bilevel.groups=1", "new=group", "+new.a=1"):
        with pytest.raises(UserError, match=r"(bilevel\.groups|new\.a) was None, is 1;"):
            check_same_settings(path, saved, present, frozenset(), [override])


def numbered(path: Path, step: int) -> None:
    save_checkpoint(path, "search", {"step": step, "overrides": [f"seed={step}"]})


@pytest.mark.parametrize("damage", ["truncated", "bit", "foreign", "empty"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = last_checkpoint(tmp_path)
    for step in (1, 2, 3):
        numbered(path, step)
    assert sorted(file.name for file in path.parent.iterdir()) == ["last.pt", PREVIOUS]
    assert load_newest(tmp_path, "search")[1]["step"] == 3 and not caplog.records
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"overrides")] ^= 4
    damaged = {"truncated": whole[:500], "bit": whole, "foreign": b"text", "empty": b""}[damage]
    path.write_bytes(bytes(damaged))
    used, state = load_newest(tmp_path, "search")
    assert (used.name, state["step"]) == (PREVIOUS, 2)
    (record,) = caplog.records
    line = record.getMessage()
    assert line.startswith(f"the checkpoint {path} is damaged") and str(used) in line
    if damage != "bit":  # only the checksum tells
        assert saved_overrides(path) == ["seed=2"]
    used.write_bytes(b"")
    with pytest.raises(UserError, match="are both damaged: delete them"):
        load_newest(tmp_path, "search")


def test_a_checkpoint_of_another_kind_is_no_reason_to_take_the_one_before(tmp_path: Path) -> None:
    path = last_checkpoint(tmp_path)
    numbered(path, 1)
    save_checkpoint(path, "retrain", {"step": 2})
    with pytest.raises(UserError, match="kind 'retrain', not of a search"):
        load_newest(tmp_path, "search")


def test_a_run_that_starts_again_forgets_what_was_before_its_first_checkpoint(
    tmp_path: Path,
) -> None:
    path = last_checkpoint(tmp_path)
    for step in (1, 2):
        numbered(path, step)
    path.unlink()
    numbered(path, 3)
    assert list(path.parent.iterdir()) == [path]


def test_without_hard_links_the_previous_checkpoint_is_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*paths: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)
    path = last_checkpoint(tmp_path)
    for step in (1, 2):
        numbered(path, step)
    assert load_checkpoint(path.with_name(PREVIOUS), "search")["step"] == 1
    assert len(list(path.parent.iterdir())) == 2


def test_many_differing_settings_are_counted(path: Path) -> None:
    with pytest.raises(UserError, match=r"a was 0, is 1, .* and 2 more; give"):
        check_same_settings(path, dict.fromkeys("abcde", 0), dict.fromkeys("abcde", 1), frozenset())


def test_part_that_does_not_fit_is_one_line(path: Path) -> None:
    weights = torch.nn.Linear(2, 2)
    with pytest.raises(UserError, match="the weights do not fit this run") as caught:
        restore("weights", path, lambda: weights.load_state_dict({"weight": torch.ones(3)}))
    assert "\n" not in str(caught.value)


def test_random_numbers_go_on_where_they_were() -> None:
    generator = torch.Generator().manual_seed(3)
    saved = rng_state(generator)
    first = torch.rand(4), torch.rand(4, generator=generator)
    set_rng_state(saved, generator)
    again = torch.rand(4), torch.rand(4, generator=generator)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
