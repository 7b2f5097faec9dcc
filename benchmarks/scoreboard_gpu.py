"""Published searches, and the best method, on a GPU: `python -m benchmarks.scoreboard_gpu`.

As `benchmarks.scoreboard`, of whole experiments: GDAS as published, on batches of 64 images for 250
epochs, in the form of the paper and in that of its authors' code, with the statistics of the batch
and with running ones; the same on batches of 256; and the method of the scoreboard's first row in
the size for one GPU. The table is a spectator: it is read when a search has ended.
"""

import sys
from collections.abc import Sequence

from benchmarks.scoreboard import Method, parser_for, score
from nas.errors import UserError
from nas.training.run import choose_device

_RUNNING = "space.track_running_stats=true"


def _published(experiment: str, *overrides: str) -> Method:
    """An experiment that looks at its genotype ten times: it costs time and changes nothing."""
    return Method(("evaluate_every_epochs=25", *overrides), experiment=experiment)


METHODS: dict[str, Method] = {
    "one path, finals, on a GPU": Method(experiment="nasbench201_gpu"),
    "GDAS, published": _published("gdas_nasbench201"),
    "GDAS, published, authors' form": _published("gdas_nasbench201_authors"),
    "GDAS, published, running statistics": _published("gdas_nasbench201", _RUNNING),
    "GDAS, published, authors' form, running statistics": _published(
        "gdas_nasbench201_authors", _RUNNING
    ),
    "GDAS, batches of 256": _published("gdas_nasbench201_batch256"),
    "GDAS, batches of 256, authors' form": _published(
        "gdas_nasbench201_batch256", "sampler=gdas_authors"
    ),
}
"""By name."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parser_for(METHODS, "scoreboard_gpu", __doc__).parse_args(arguments)
    try:
        return score(METHODS, options, choose_device("auto"))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
