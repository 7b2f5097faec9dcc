"""Labels for image files: `nas.Predictor`."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from nas.data.folder import EXTENSIONS, image_files
from nas.data.preprocessing import ImageOrPath
from nas.deploy.load import ModelOrName, TrainedModel
from nas.errors import UserError
from nas.training.run import choose_device

Image = TypeVar("Image", bound=ImageOrPath)


class Prediction(NamedTuple):
    """A class and how probable the network thinks it."""

    label: str
    probability: float


class Predictor:
    """Classifies images as the retraining did when it measured the accuracy.

    Attributes:
        network: The network, in evaluation mode; takes what `preprocess` gives, in batches.
        preprocess: From an image or its file to the input `[C, size, size]` of the network.
        class_names: Names of the classes, in the order of the logits.
        description: All that is known of the network.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        device: str = "auto",
        batch_size: int = 64,
        model: ModelOrName | None = None,
        trust_recorded_model: bool = False,
    ) -> None:
        """Args:
            path: As for `nas.load`.
            device: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:<number>`.
            batch_size: Images that go through the network at a time.
            model: As for `nas.load`.
            trust_recorded_model: Likewise.

        Raises:
            UserError: as `nas.load`; or there is no such device.
        """
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}: must be at least 1")
        trained = TrainedModel.read(Path(path))
        self._device, self._batch_size = choose_device(device), batch_size
        network = trained.network(model, trust_recorded_model=trust_recorded_model)
        self.network = network.to(self._device)
        self.description = trained.description
        self.preprocess = trained.description.preprocessing
        self.class_names = trained.description.class_names

    def __call__(self, image: ImageOrPath, top: int = 5) -> list[Prediction]:
        """The `top` most probable classes of one image, most probable first.

        Raises:
            UserError: the image is broken, or has more than 8 bits a channel; `top` is below 1.
        """
        return self._predictions(self.preprocess(image)[None], top)[0]

    def many(
        self,
        images: Iterable[Image],
        top: int = 5,
        *,
        skip: Callable[[UserError], None] | None = None,
    ) -> Iterator[tuple[Image, list[Prediction]]]:
        """Each image with its most probable classes, in order; works in batches, as it is read.

        Args:
            images: Images or their files.
            top: Classes of each.
            skip: Called with what is wrong with an image, which is then left out; None raises.

        Raises:
            UserError: as `__call__`, if nothing is to be skipped.
        """
        images = iter(images)
        with ThreadPoolExecutor() as pool:
            while batch := list(islice(images, self._batch_size)):
                read = list(zip(batch, pool.map(self._read, batch), strict=True))
                for _, found in read:
                    if isinstance(found, UserError):
                        if skip is None:
                            raise found
                        skip(found)
                good = [(image, found) for image, found in read if isinstance(found, Tensor)]
                if good:
                    inputs = torch.stack([found for _, found in good])
                    predicted = self._predictions(inputs, top)
                    yield from ((i, p) for (i, _), p in zip(good, predicted, strict=True))

    def folder(
        self,
        path: str | Path,
        top: int = 5,
        *,
        skip: Callable[[UserError], None] | None = None,
    ) -> Iterator[tuple[Path, list[Prediction]]]:
        """`many` for all images in and below a folder, sorted by name.

        Raises:
            UserError: there is no such folder, or no image in it.
        """
        return self.many(images_in(Path(path)), top, skip=skip)

    def _read(self, image: ImageOrPath) -> Tensor | UserError:
        try:
            return self.preprocess(image)
        except UserError as error:
            return error

    def _predictions(self, inputs: Tensor, top: int) -> list[list[Prediction]]:
        if top < 1:
            raise UserError(f"top is {top}: must be at least 1")
        with torch.inference_mode():
            probabilities = self.network(inputs.to(self._device)).float().softmax(1).cpu()
        best = probabilities.topk(min(top, len(self.class_names)), dim=1)
        return [
            [Prediction(self.class_names[k], p) for p, k in zip(values, classes, strict=True)]
            for values, classes in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]


def images_in(path: Path) -> Sequence[Path]:
    """The images that `path` stands for: itself, or what is in and below a folder, sorted.

    Raises:
        UserError: there is no such file or folder, or no image in the folder.
    """
    if path.is_dir():
        found = [Path(name) for name in image_files(str(path))]
        if not found:
            raise UserError(f"no image in {path} ({', '.join(EXTENSIONS)})")
        return found
    if not path.exists():
        raise UserError(f"no such file or folder: {path}")
    return [path]
