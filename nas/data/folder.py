"""Folders of class folders: which images there are, and how they are split. Opens none."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nas.data.order import stratified_split
from nas.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
TRAIN_FOLDER = "train"
TEST_FOLDERS = ("test", "val", "valid", "validation")


@dataclass(frozen=True)
class ImageFiles:
    """Image files with their labels.

    Attributes:
        paths: The files.
        labels: int64 `[N]`.
        class_names: Names of the classes.
    """

    paths: list[str]
    labels: Tensor
    class_names: tuple[str, ...]

    def select(self, indices: Tensor) -> "ImageFiles":
        """The files at `indices`."""
        chosen = [self.paths[i] for i in indices.tolist()]
        return ImageFiles(chosen, self.labels[indices], self.class_names)


def list_training(root: Path, test_fraction: float) -> ImageFiles:
    """The training files under `root`; opens no file, and looks at no folder of test images.

    These are `root/train/<class>/*`, or `root/<class>/*` without those that `list_test` takes.

    Raises:
        UserError: no such folder, or not of this form.
    """
    if _has_own_splits(root):
        return list_classes(root / TRAIN_FOLDER)
    files = list_classes(root)
    kept = stratified_split(files.labels, test_fraction, "test split")[0]
    if not len(kept):
        raise UserError(
            f"data.test_fraction is {test_fraction}: leaves none of the {len(files.paths)} "
            f"images of {root} for training"
        )
    check_classes_left(files.labels[kept], files.class_names, test_fraction)
    return files.select(kept)


def check_classes_left(labels: Tensor, class_names: Sequence[str], test_fraction: float) -> None:
    """Checks that each class has an image left to train on.

    Args:
        labels: Of the images that are left, int64 `[N]`.
        class_names: Of all classes.
        test_fraction: Share that was held out.

    Raises:
        UserError: the held-out test images are all that a class has.
    """
    counts = torch.bincount(labels, minlength=len(class_names))
    if not counts.all():
        name = class_names[int(counts.argmin())]
        raise UserError(
            f"data.test_fraction is {test_fraction}: leaves no image of the class {name!r} for "
            "training; give it more images, or test images of their own"
        )


def list_test(root: Path, test_fraction: float) -> ImageFiles:
    """The test files under `root`; opens no file.

    These are `root/test/<class>/*` (or val, valid, validation) beside `root/train`, or the share
    `test_fraction` of each class of `root/<class>/*`, always the same whatever the run's seed.

    Raises:
        UserError: no such folder, not of this form, or other classes than the training files'.
    """
    if not _has_own_splits(root):
        files = list_classes(root)
        held_out = stratified_split(files.labels, test_fraction, "test split")[1]
        if not len(held_out):
            raise UserError(
                f"data.test_fraction is {test_fraction}: holds out none of the "
                f"{len(files.paths)} images of {root}"
            )
        return files.select(held_out)
    for name in TEST_FOLDERS:
        if (root / name).is_dir():
            _check_same_classes(root / TRAIN_FOLDER, root / name)
            return list_classes(root / name)
    raise UserError(
        f"data.path: {root} has a folder '{TRAIN_FOLDER}' but none of {', '.join(TEST_FOLDERS)}"
    )


def list_classes(folder: Path) -> ImageFiles:
    """All image files of `folder`, sorted; each sub-folder is a class.

    Raises:
        UserError: fewer than two classes, a class without an image, or one whose name is not text.
    """
    classes = _class_names(folder)
    if len(classes) < 2:
        found = f"only '{classes[0]}'" if classes else "none"
        inner = folder / classes[0] if classes else folder
        hint = f"; did you mean {inner}?" if classes and (inner / TRAIN_FOLDER).is_dir() else ""
        raise UserError(
            f"data.path: {folder} needs at least two class folders with images, found {found}{hint}"
        )
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        if not _is_text(name):
            raise UserError(
                f"data.path: the name of the class folder {str(folder / name)!r} is not UTF-8, so "
                "it cannot be kept as the name of a class: rename the folder"
            )
        images = image_files(str(folder / name), (os.path.realpath(folder),))
        if not images:
            raise UserError(
                f"data.path: the class folder {folder / name} has no image "
                f"({', '.join(EXTENSIONS)})"
            )
        paths += images
        labels += [label] * len(images)
    return ImageFiles(paths, torch.tensor(labels), tuple(classes))


def _has_own_splits(root: Path) -> bool:
    if not root.is_dir():
        raise UserError(f"data.path: no such folder: {root}")
    if (root / TRAIN_FOLDER).is_dir():
        return True
    for name in _class_names(root):
        # Taken for a class, it would put the test images among the training images.
        if name.lower() in (*TEST_FOLDERS, "testing"):
            raise UserError(
                f"data.path: {root} has a folder '{name}' but no '{TRAIN_FOLDER}': rename the "
                f"folder of the training images to '{TRAIN_FOLDER}', or '{name}' if it is a class"
            )
    return False


def _class_names(folder: Path) -> list[str]:
    return [entry.name for entry in _entries(str(folder)) if _is_folder(entry)]


def image_files(folder: str, above: tuple[str, ...] = ()) -> list[str]:
    """The files of `folder` and below, sorted; `above` are the folders that it is in.

    Raises:
        UserError: a folder cannot be read, or a link in it leads back up.
    """
    real = os.path.realpath(folder)
    if real in above:
        raise UserError(f"data.path: {folder} is a link to a folder that it is in itself")
    found: list[str] = []
    for entry in _entries(folder):
        if _is_folder(entry):
            found += image_files(entry.path, (*above, real))
        # Links may dangle, which is told when they are read; a pipe would be waited for.
        elif entry.name.lower().endswith(EXTENSIONS) and (entry.is_file() or entry.is_symlink()):
            found.append(entry.path)
    return found


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """What is in `folder`, sorted, without what is hidden (macOS leaves `._x.jpg`)."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"data.path: cannot read {folder}: {error.strerror}") from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_text(name: str) -> bool:
    """Whether a file's name could be read; what could not is in it as surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_same_classes(train: Path, test: Path) -> None:
    odd = sorted(set(_class_names(train)) ^ set(_class_names(test)))
    if odd:
        raise UserError(
            f"data.path: the classes of {train} and {test} differ: {', '.join(odd[:5])}"
        )
