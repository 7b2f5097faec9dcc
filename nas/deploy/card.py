"""The model card of an export: `README.md`, for whoever is handed the folder."""

from collections.abc import Mapping

from nas.data.loaders import IMAGENET
from nas.deploy.description import Difference, ModelDescription
from nas.deploy.formats import FORMATS, INPUT, OUTPUT
from nas.genotype import Genotype
from nas.genotype.text import genotype_text
from nas.nested import flat

PICTURE = "cell.png"

_SHOWN_CLASSES = 20
_IS_PHOTO_SIZED = 64  # pixels a side

_FORMAT_USE = {
    "pt2": """\
PyTorch alone, without the code of the network:

```python
import torch

network = torch.export.load("model.pt2").module()
```
""",
    "onnx": f"""\
ONNX Runtime, input `{INPUT}`, output `{OUTPUT}`, any number of images at a time:

```python
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
```
""",
}


def model_card(genotype: Genotype, description: ModelDescription) -> str:
    """The card in Markdown; what the description does not know is left out.

    Args:
        genotype: Of the network.
        description: With the differences of the formats that lie beside the card.
    """
    parts = [
        _head(genotype, description),
        _use(description),
        _section("Preprocessing", _bullets(description.preprocessing.steps())),
        _section("Data", _data(description)),
        _section("Recipe", _recipe(description)),
        _section("Accuracy", _accuracy(description)),
        _section("Cost", _cost(description)),
        _architecture(genotype, description),
        _section("Limits", _bullets(_limits(description))),
        _section("Licence", _LICENCE),
    ]
    return "\n".join(part for part in parts if part)


_LICENCE = (
    "The program that trained this network is under the MIT licence, which says nothing about the "
    "weights. Whoever trained them decides what may be done with them, within the terms of the "
    "data: put that here before you hand them on."
)


def _head(genotype: Genotype, description: ModelDescription) -> str:
    classes = description.class_names
    shown = ", ".join(classes[:_SHOWN_CLASSES])
    more = len(classes) - _SHOWN_CLASSES
    rest = f" and {more} more (`model.json` has all)" if more > 0 else ""
    data = f" trained on {description.data['name']}" if "name" in description.data else ""
    return (
        f"# Image classifier of {len(classes)} classes\n\n"
        f"A network of the search space `{genotype.space}`, found by neural architecture "
        f"search,{data}. Classes: {shown}{rest}.\n"
    )


def _use(description: ModelDescription) -> str:
    needs_model = f', model="{description.model}"' if description.model else ""
    importable = (
        f" The network is made from `{description.model}`, which must be importable: it is not "
        "part of this folder."
        if description.model
        else ""
    )
    own = (
        f"With one-path-nas, in this folder.{importable}\n\n"
        "```python\n"
        "import nas\n\n"
        f'predictor = nas.Predictor("."{needs_model})\n'
        'predictor("image.png")  # [(label, probability), ...], most probable first\n'
        "```\n\n"
        f'`nas.load("."{needs_model})` is the network alone, a `torch.nn.Module`. Command line: '
        "`nas-predict . image.png photos/`.\n"
    )
    found = [_format_use(name, d) for name, d in description.differences.items()]
    return "\n".join(["## Use\n", own, *found])


def _format_use(name: str, difference: Difference) -> str:
    return (
        f"{_FORMAT_USE[name]}\n"
        f"The logits of `{FORMATS[name].file}` differ from the network's by "
        f"{difference.largest:.1e} at most (largest logit {difference.largest_logit:.1f}), "
        "compared on images of random pixels.\n"
    )


def _data(description: ModelDescription) -> str:
    data = description.data
    if not data:
        return ""
    is_imagenet = data.get("name") == IMAGENET
    augmentation = ["random resized crops", "colour jitter"] if is_imagenet else []
    augmentation += [
        f"{name.replace('_', ' ')} {data[name]}"
        for name in ("crop_padding", "flip", "cutout")
        if data.get(name) and not (is_imagenet and name == "crop_padding")
    ]
    return (
        f"`{data.get('name')}`: {_count(data.get('num_train'))} training images, "
        f"{_count(data.get('num_test'))} test images. Augmentation in training: "
        f"{', '.join(augmentation) or 'none'}.\n"
    )


def _recipe(description: ModelDescription) -> str:
    if not description.recipe:
        return ""
    settings = flat(description.recipe).items()
    rows = {f"`{name}`": _plain(value) for name, value in settings if value is not None}
    return (
        f"Settings of `retrain.py` (one-path-nas {description.release}); those of another "
        f"optimiser or schedule have no effect.\n\n{_table(rows)}"
    )


def _accuracy(description: ModelDescription) -> str:
    found = description.accuracy
    if not found:
        return ""
    weights = {
        "moving average": "These are a moving average of the weights over the training.",
    }.get(str(found.get("weights")), "These are the weights after the last epoch.")
    top1, top5 = _percent(found.get("test_top1")), _percent(found.get("test_top5"))
    return (
        f"Top-1 {top1}, top-5 {top5} of the "
        f"{_count(description.data.get('num_test'))} test images, after the last epoch, in "
        f"{description.recipe.get('precision', 'float32')}; one training, seed "
        f"{description.recipe.get('seed', 'unknown')}. No test image was trained on, and no epoch "
        f"was picked by the test set. {weights}\n"
    )


def _cost(description: ModelDescription) -> str:
    cost = description.cost
    rows = {
        "parameters": _count(cost.get("num_parameters")),
        "multiply-adds of an image": _count(cost.get("multiply_adds")),
        "training": f"{_duration(cost.get('training_seconds'))} on {cost.get('device')}",
    }
    if "search_seconds" in cost:
        rows["search"] = _duration(cost["search_seconds"])
    return _table(rows) if cost else ""


def _architecture(genotype: Genotype, description: ModelDescription) -> str:
    sizes = ", ".join(f"{name} {_plain(value)}" for name, value in description.sizes.items())
    text = genotype_text(genotype)
    return f"## Architecture\n\n![The architecture]({PICTURE})\n\n```\n{text}\n```\n" + (
        f"\nSizes: {sizes}.\n" if sizes else ""
    )


def _limits(description: ModelDescription) -> list[str]:
    size = description.preprocessing.image_size
    limits = [
        "Each image gets exactly one of the classes, also one that shows none of them.",
        "Probabilities are the softmax of the logits; they are not calibrated.",
        "The accuracy holds for images like the test images. On others it was not measured.",
    ]
    if size <= _IS_PHOTO_SIZED:
        limits.append(f"Whatever is smaller than a pixel at {size}x{size} is lost.")
    return limits


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text.rstrip()}\n" if text else ""


def _table(rows: Mapping[str, str]) -> str:
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(["| | |", "| --- | --- |", *lines]) if lines else ""


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _plain(value: object) -> str:
    return "-".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "an unknown number of"


def _percent(value: object) -> str:
    return f"{value:.2f} %" if isinstance(value, int | float) else "an unknown share"


def _duration(seconds: object) -> str:
    if not isinstance(seconds, int | float):
        return "an unknown time"
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds:.0f} s"
