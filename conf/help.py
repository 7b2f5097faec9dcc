"""`--help`: one page for each program."""

import textwrap
from dataclasses import dataclass

from conf import outline
from conf.listing import kinds, table, width

HOME = "docs/command_line.md"


@dataclass(frozen=True)
class Page:
    """What the help of a program says besides its groups.

    Attributes:
        what: What the program does.
        settings: The settings that are changed most.
        examples: Overrides, each with what they do.
        more: Where the rest is told.
    """

    what: str
    settings: tuple[str, ...]
    examples: tuple[tuple[str, str], ...]
    more: str


PAGES = {
    "search": Page(
        "Searches an architecture: trains a supernet and its architecture logits, derives one "
        "genotype from them, and writes it to runs/search/<time>/genotype.json for the retraining.",
        ("epochs", "batch_size", "seed", "device", "precision", "run_dir", "resume"),
        (
            ("", "a search on scikit-learn's digits, nothing is downloaded"),
            ("space=darts data=cifar10 sampler=gdas", "another space, CIFAR-10"),
            ("data=image_folder data.path=photos data.image_size=32", "your own images"),
            ("space=custom space.model=my_package.MyNet", "your own model"),
            ("experiment=gdas_nasbench201", "a published setting"),
            ("experiment=gdas_nasbench201 debug=smoke", "does it run? in seconds"),
            ("run_dir=runs/search/mine resume=true", "go on with a run that was stopped"),
            ("-m seed=0,1,2", "three seeds; python -m nas.sweep has their mean"),
        ),
        "README.md, docs/metrics.md (what is logged), docs/scaling.md (sweeps), docs/results.md",
    ),
    "retrain": Page(
        "Trains a derived architecture from scratch on the whole training set and measures it on "
        "the test set; writes the weights to runs/retrain/<time>/.",
        (
            *("genotype", "epochs", "batch_size", "seed", "device", "precision", "run_dir"),
            *("resume", "network.channels", "auxiliary_weight", "drop_path", "compile"),
        ),
        (
            ("genotype=runs/search/mine/genotype.json data=cifar10", "what a search has found"),
            ("experiment=retrain_darts_cifar10 genotype=darts_v2", "a published cell and recipe"),
            ("genotype=darts_v2 debug=smoke", "does it run? in seconds"),
            ("run_dir=runs/retrain/mine resume=true", "go on with a run that was stopped"),
            ("-m genotype=darts_v2 seed=0,1,2", "three seeds"),
        ),
        "README.md, docs/export.md (what to do with the weights), docs/results.md",
    ),
    "export": Page(
        "Exports a trained network as safetensors, torch.export program and ONNX, whose outputs "
        "are compared with the network's, and with a model card.",
        ("run", "output", "formats", "tolerance", "model"),
        (
            ("run=runs/retrain/mine output=exported", "all formats that can be written here"),
            ("run=runs/retrain/mine 'formats=[safetensors,pt2]'", "some of them"),
        ),
        "docs/export.md",
    ),
    "profile_space": Page(
        "Measures the latency of each operation of a space on this device, and how well they "
        "predict whole networks; writes a table for budget=latency.",
        ("output", "batch_size", "device", "threads", "precision", "repetitions"),
        (
            ("space=nasbench201 data=cifar10 output=latency.json", "the table of a space"),
            ("image_size=32 in_channels=3 num_classes=10", "without any images"),
        ),
        "docs/design.md (latency), README.md",
    ),
}

_OPTIONS = (
    ("--list [KIND]", "the names that there are, a line on each: {kinds}"),
    ("--cfg job", "the settings as they would be, instead of a run"),
    ("-m, --multirun", "a run for each combination of KEY=A,B,...: a sweep"),
    ("-sc install=SHELL", "completion with the tab key: bash, zsh or fish"),
    ("--hydra-help", "the other options, which are Hydra's"),
    ("-h, --help", "this page"),
)


def page(program: str, command: str) -> str:
    """The help of `program`, which is started as `command`."""
    content = PAGES[program]
    groups = outline.groups(program)
    usage = f"{command} {'[GROUP=OPTION]... ' if groups else ''}[KEY=VALUE]... [-m] [--list KIND]"
    listed = ", ".join(kinds(program))
    parts = [
        ("", usage),
        ("", _filled(content.what)),
        ("Groups, with the option that is taken if nothing is said in brackets:", _groups(program)),
        ("Settings (--list settings has all):", _settings(program, content.settings)),
        ("Options:", table([(name, text.format(kinds=listed)) for name, text in _OPTIONS])),
        ("Examples:", _examples(command, content.examples)),
        ("", _filled(f"Documentation: {HOME} (and exit codes); {content.more}.")),
    ]
    return "\n\n".join(f"{title}\n{text}".strip("\n") for title, text in parts if text)


def _filled(text: str) -> str:
    return textwrap.fill(text, width(), break_on_hyphens=False)


def _groups(program: str) -> str:
    rows = []
    for group, first in outline.groups(program).items():
        names = outline.options(group, program)
        rows.append((group, "  ".join(f"[{name}]" if name == first else name for name in names)))
    return table(rows)


def _settings(program: str, keys: tuple[str, ...]) -> str:
    return table([(key, outline.meaning(program, key, {})) for key in keys])


def _examples(command: str, examples: tuple[tuple[str, str], ...]) -> str:
    lines = []
    for overrides, text in examples:
        line = f"  {command} {overrides}".rstrip()
        fits = len(line) + len(text) + 4 <= width()
        lines.append(f"{line}  # {text}" if fits else f"  # {text}\n{line}")
    return "\n".join(lines)
