"""Checkpoints of searches and retrainings: written whole or not at all, loaded without code."""

import logging
import os
import shutil
import zipfile
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from nas.errors import UserError, reason
from nas.files import replacing, temporary_of
from nas.nested import flat

FORMAT_VERSION = 1
FOLDER = "checkpoints"
LAST = "last.pt"
PREVIOUS = "previous.pt"
"""What the last checkpoint was before it was replaced, for when that turns out to be damaged."""

State = dict[str, Any]
_log = logging.getLogger(__name__)


class DamagedCheckpointError(UserError):
    """A file that is not a whole checkpoint.

    Attributes:
        reason: The message without the advice.
    """

    def __init__(self, path: Path, found: str) -> None:
        self.reason = f"the checkpoint {path} is damaged or not a checkpoint ({found})"
        super().__init__(f"{self.reason}: delete it to start again")


def last_checkpoint(run_dir: Path) -> Path:
    """Where a run keeps its newest checkpoint."""
    return run_dir / FOLDER / LAST


def save_checkpoint(path: Path, kind: str, state: State) -> None:
    """Writes `state` (tensors, numbers, text, lists and dicts) with its kind and format version.

    The checkpoint that was there stays beside it as the previous one; older ones go.

    Raises:
        UserError: the file cannot be written; the one that was there is untouched.
    """
    content = {"format_version": FORMAT_VERSION, "kind": kind, **state}
    with replacing(path) as temporary:
        try:
            with temporary.open("wb") as file:
                torch.save(content, file)
        except RuntimeError as error:
            # torch hides the operating system's error (a full disk) behind one of its own.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        _keep_as_previous(path)


def _keep_as_previous(path: Path) -> None:
    """At no moment is there neither a last checkpoint nor a previous one."""
    previous = path.with_name(PREVIOUS)
    if not path.exists():  # it is that of a run that was deleted to start again
        previous.unlink(missing_ok=True)
        return
    _duplicate(path, previous)


def put_back(path: Path) -> None:
    """Puts the previous checkpoint in the place of a damaged last one.

    Otherwise the next save would keep the damaged one as the previous.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        _duplicate(path.with_name(PREVIOUS), path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {reason(error)}") from error


def _duplicate(source: Path, target: Path) -> None:
    """Makes `target` the same file as `source`, at once."""
    spare = temporary_of(target)
    try:
        try:
            os.link(source, spare)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, spare)
        os.replace(spare, target)
    finally:
        with suppress(OSError):
            spare.unlink(missing_ok=True)


def load_newest(run_dir: Path, kind: str) -> tuple[Path, State]:
    """The last checkpoint of a run and where it is; the previous one if the last is damaged.

    Raises:
        UserError: as for `load_checkpoint`, for both.
    """
    path = last_checkpoint(run_dir)
    try:
        return path, load_checkpoint(path, kind)
    except DamagedCheckpointError as error:
        previous = path.with_name(PREVIOUS)
        if not previous.exists():
            raise
        try:
            state = load_checkpoint(previous, kind)
        except DamagedCheckpointError:
            raise UserError(
                f"the checkpoints {path} and {previous} are both damaged: delete them to start "
                "again"
            ) from None
        _log.warning("%s; going on from the one before it, %s", error.reason, previous)
        return previous, state


def load_checkpoint(path: Path, kind: str) -> State:
    """Reads a checkpoint of `kind` ("search" or "retrain") onto the host.

    Raises:
        DamagedCheckpointError: it is not a whole checkpoint.
        UserError: no such file, one that may not be read, of another kind or of another format
            version.
    """
    if not path.exists():
        raise UserError(f"there is no checkpoint {path}: nothing to resume")
    try:
        # torch does not look at the checksums that it writes.
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise zipfile.BadZipFile("bad checksum")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (PermissionError, MemoryError) as error:  # not the fault of the file
        why = getattr(error, "strerror", None) or "not enough memory"
        raise UserError(f"cannot read the checkpoint {path}: {why}") from None
    except Exception as error:  # torch raises many kinds for damaged and for malicious files
        _log.debug("cannot load %s", path, exc_info=True)
        raise DamagedCheckpointError(path, type(error).__name__) from None
    if not isinstance(state, dict) or state.get("kind") != kind:
        found = state.get("kind") if isinstance(state, dict) else None
        raise UserError(f"{path} is a checkpoint of kind '{found}', not of a {kind}")
    version = state.get("format_version")
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {version}, this release reads version {FORMAT_VERSION}"
        )
    return state


def saved_overrides(path: Path) -> list[str]:
    """The command line of the run that wrote a checkpoint; none where it cannot be read.

    Reads no tensor, so it takes no time; what is wrong with the file is told by `load_newest`,
    which turns to the previous checkpoint as this does.
    """
    for candidate in (path, path.with_name(PREVIOUS)):
        try:
            state = torch.load(candidate, map_location="cpu", weights_only=True, mmap=True)
            return [str(override) for override in state["overrides"]]
        except Exception:  # torch raises many kinds for damaged and for malicious files
            _log.debug("no overrides in %s", candidate, exc_info=True)
    return []


def check_same_settings(
    path: Path,
    saved: State,
    present: State,
    free: frozenset[str],
    asked_for: Collection[str] = (),
) -> None:
    """Checks that a run is resumed with the settings that it was started with.

    A setting that the checkpoint does not have is newer than the release that wrote it. It has a
    default, with which a run does what it did before there was the setting, so it may be there;
    unless it is asked for now.

    Args:
        path: The checkpoint, for the error.
        saved: Settings in the checkpoint, nested dicts.
        present: Settings of this run.
        free: Dotted keys that may differ.
        asked_for: Overrides of this run that the one before did not have.

    Raises:
        UserError: other keys differ; it names them with both values.
    """
    before, now = (
        {key: value for key, value in flat(settings).items() if value != {}}
        for settings in (saved, present)
    )
    names = tuple(override.lstrip("+").partition("=")[0] for override in asked_for)
    is_new = {
        key
        for key in now.keys() - before.keys()
        if not any(key == name or key.startswith(f"{name}.") for name in names)
    }
    differing = sorted(
        key
        for key in (before.keys() | now.keys()) - free - is_new
        if before.get(key) != now.get(key)
    )
    if differing:
        shown = ", ".join(f"{k} was {before.get(k)}, is {now.get(k)}" for k in differing[:3])
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise UserError(
            f"cannot resume {path} with other settings: {shown}{more}; give the old ones or "
            "another run_dir"
        )


def restore(what: str, path: Path, load: Callable[[], object]) -> None:
    """Calls `load`, which puts a part of a checkpoint in place.

    Raises:
        UserError: the part does not fit, `what` says which.
    """
    try:
        load()
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: the {what} do not fit this run ({reason})") from None


def rng_state(generator: torch.Generator | None = None) -> State:
    """The states of torch's global generators and of the named one."""
    state: State = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    if generator is not None:
        state["sampler"] = generator.get_state()
    return state


def set_rng_state(state: State, generator: torch.Generator | None = None) -> None:
    """Puts back what `rng_state` returned."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])
    if generator is not None:
        generator.set_state(state["sampler"])
