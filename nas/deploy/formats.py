"""Networks in forms that run without this package, each compared with the network itself."""

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from nas.data.augment import normalise
from nas.data.preprocessing import Preprocessing
from nas.deploy.description import Difference
from nas.errors import UserError

INPUT, OUTPUT = "images", "logits"
ONNX_PACKAGES = "onnx, onnxscript and onnxruntime: pip install 'one-path-nas[onnx]'"

_TRACED_BATCH = 2  # of 1 image PyTorch would make a constant
_COMPARED_BATCHES = (1, 5)


@dataclass(frozen=True)
class Format:
    """A form of a network.

    Attributes:
        file: Name of its file.
        write: Writes the traced network, with a text to go with it (`model.json`), to a file.
        run: What the network in a file makes of images `[B, C, H, W]`.
        check: Raises a `UserError` where a package is missing.
    """

    file: str
    write: Callable[[ExportedProgram, str, Path], None]
    run: Callable[[Path, Tensor], Tensor]
    check: Callable[[], None]


def _write_pt2(program: ExportedProgram, description: str, path: Path) -> None:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"model.json": description})
    path.write_bytes(buffer.getvalue())  # PyTorch's own writer aborts the process on a full disk


def _run_pt2(path: Path, images: Tensor) -> Tensor:
    logits: Tensor = torch.export.load(path).module()(images)
    return logits


def _write_onnx(program: ExportedProgram, description: str, path: Path) -> None:
    exported = torch.onnx.export(
        program, dynamo=True, input_names=[INPUT], output_names=[OUTPUT], verbose=False
    )
    assert exported is not None  # None is for the exporter of old
    exported.model.metadata_props["model.json"] = description
    exported.save(path)


def _run_onnx(path: Path, images: Tensor) -> Tensor:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])


def _check_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"formats: onnx needs the packages {ONNX_PACKAGES} ({error})") from None


def _check_nothing() -> None:
    """PyTorch alone will do."""


FORMATS = {
    "pt2": Format("model.pt2", _write_pt2, _run_pt2, _check_nothing),
    "onnx": Format("model.onnx", _write_onnx, _run_onnx, _check_onnx),
}
"""By name; a new one is one entry."""


def available_formats() -> list[str]:
    """Names of the formats whose packages are installed."""

    def is_available(name: str) -> bool:
        try:
            FORMATS[name].check()
        except UserError:
            return False
        return True

    return [name for name in FORMATS if is_available(name)]


def trace(network: nn.Module, preprocessing: Preprocessing) -> ExportedProgram:
    """The program that `network` runs in evaluation, for batches of any size.

    Raises:
        UserError: PyTorch cannot trace it, which may happen with a model of one's own.
    """
    images = torch.zeros(_TRACED_BATCH, *_shape(preprocessing))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what PyTorch does inside, not the user
            batch = Dim("batch", min=1)
            program = torch.export.export(network, (images,), dynamic_shapes=({0: batch},))
    except Exception as error:  # torch raises many kinds for what it cannot trace
        raise UserError(
            f"formats: torch.export cannot trace the network ({_first_line(error)}); its forward "
            "pass must not depend on values or on the number of images"
        ) from None
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            node.meta.pop("stack_trace", None)  # has paths of this machine
    return program


def write(name: str, program: ExportedProgram, description: str, path: Path) -> None:
    """Writes `program` in the format `name`, with the text `description` in it.

    Raises:
        UserError: the packages of the format are missing, or they cannot express the network.
        OSError: the file cannot be written.
    """
    FORMATS[name].check()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            FORMATS[name].write(program, description, path)
    except OSError:
        raise
    except Exception as error:  # the exporters raise many kinds
        raise UserError(f"formats: {name}: cannot be written ({_first_line(error)})") from None


def compare(name: str, path: Path, network: nn.Module, preprocessing: Preprocessing) -> Difference:
    """How far the network in the file `path` is from `network`, on images of random pixels.

    Batches of several sizes are run, none of them that of the trace.
    """
    generator = torch.Generator().manual_seed(0)
    mean, std = (
        torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std)
    )
    differences, logits = [], []
    for batch in _COMPARED_BATCHES:
        shape = batch, *_shape(preprocessing)
        pixels = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        images = normalise(pixels, mean, std)
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected, found = network(images), FORMATS[name].run(path, images)
        if found.shape != expected.shape:
            raise UserError(
                f"formats: {name}: gives {list(found.shape)} for {batch} images, the network "
                f"{list(expected.shape)}"
            )
        differences.append((found - expected).abs().max())
        logits.append(expected.abs().max())
    # Python's max would pass over a NaN.
    return Difference(torch.stack(differences).max().item(), torch.stack(logits).max().item())


def check(name: str, difference: Difference, tolerance: float) -> None:
    """Raises a `UserError` if a format is further from the network than `tolerance`.

    Args:
        name: Of the format.
        difference: That was found.
        tolerance: Largest difference allowed, as a share of the largest logit.
    """
    if not difference.relative <= tolerance:  # a NaN is not
        raise UserError(
            f"formats: {name}: logits differ from the network's by up to {difference.largest:.2g} "
            f"(largest logit {difference.largest_logit:.2g}), more than tolerance={tolerance:g} of "
            "that: nothing is exported"
        )


def _shape(preprocessing: Preprocessing) -> tuple[int, int, int]:
    size = preprocessing.image_size
    return preprocessing.in_channels, size, size


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
