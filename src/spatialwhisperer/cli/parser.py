"""What can be typed: the commands, their options, and the help of each."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from spatialwhisperer import __version__

if TYPE_CHECKING:
    from argparse import _ArgumentGroup, _SubParsersAction
    from collections.abc import Callable

T = TypeVar("T")

BESIDE = ""
"""Value of ``--geojson`` and ``--report`` without a path: the file is written beside the result."""

_EPILOG = """\
examples:
  spatialwhisperer annotate slide.svs --out result.zarr --geojson --report
  spatialwhisperer annotate slides --out results --geojson --report
  spatialwhisperer annotate slide.tif --out result.zarr --labels "malignant cell,fat cell,T cell"

An interrupted run goes on where it stopped when the same command is given again.
Exit code: 0 all slides have a result, 1 some slide failed, 2 the command was typed wrongly.
For research, not for diagnosis.
"""


class _Parser(argparse.ArgumentParser):
    """Errors in one line, and no abbreviated options, whose meaning a later version could change."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        print(f"spatialwhisperer: error: {message.rstrip('.')}. See {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(
        prog="spatialwhisperer",
        description="Labels H&E slides in words, from the image alone. For research, not for diagnosis.",
    )
    parser.add_argument("--version", action="version", version=f"spatialwhisperer {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _annotate(commands)
    _encoders(commands)
    _doctor(commands)
    return parser


def _encoders(commands: _SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "encoders",
        help="list the encoders that models are made of",
        description="List the registered encoders: what they read, which package opens them, their licence, and whether they work "
        "without a network connection.",
    )
    parser.add_argument("--modality", metavar="NAME", help="only encoders of this kind: image, gene or text")
    _debug(parser)


def _doctor(commands: _SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "doctor",
        help="check the installation",
        description="Check the installation: Python, packages, device, memory, cache folder, optional parts and the embedded model. "
        "The exit code is 1 where something that is needed does not work.",
    )
    _debug(parser)


def _annotate(commands: _SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "annotate",
        help="label slides",
        usage="%(prog)s SLIDE [SLIDE ...] --out PATH [options]",
        description="Label the tissue of slides. Tiles are laid over the tissue of each slide, and each tile gets\n"
        "the label whose description fits best.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "slides",
        nargs="+",
        type=Path,
        metavar="SLIDE",
        help="a slide (TIFF, OME-TIFF, PNG, JPEG; SVS, NDPI, MRXS and others with openslide), a SpatialData (.zarr), an AnnData (.h5ad), "
        "or a folder of these",
    )
    _outputs(parser.add_argument_group("what is written"))
    _labels(parser.add_argument_group("labels"))
    _reading(parser.add_argument_group("how slides are read"))
    _computing(parser.add_argument_group("computing and messages"))
    _debug(parser)


def _outputs(group: _ArgumentGroup) -> None:
    group.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="PATH",
        help="the result: NAME.zarr for one slide (NAME.h5ad for an AnnData); a folder for several slides, which is made",
    )
    for name, what in (("geojson", "labels and scores for QuPath"), ("report", "a report as an HTML file")):
        group.add_argument(
            f"--{name}",
            nargs="?",
            const=BESIDE,
            metavar="PATH",
            help=f"also write {what}: a file for one slide, a folder for several; without PATH it lies beside the result",
        )
    group.add_argument(
        "--no-image", action="store_true", help="leave the pixels out of the result, which makes it small"
    )
    group.add_argument("--overwrite", action="store_true", help="replace results that exist; otherwise they are kept")


def _labels(group: _ArgumentGroup) -> None:
    group.add_argument(
        "--model", metavar="NAME", help="folder or Hugging Face name of a model (default: the embedded one)"
    )
    group.add_argument(
        "--labels", type=_labels_of, metavar="A,B,C", help="labels to choose from (default: those of the model)"
    )
    group.add_argument(
        "--modality", metavar="NAME", help="what is read: image or gene (default: the image if there is one)"
    )
    group.add_argument(
        "--normalize", choices=["none", "centre", "softmax"], help="how scores of different labels are made comparable"
    )
    group.add_argument(
        "--background", choices=["section", "training"], help="rows over which --normalize centre averages"
    )
    group.add_argument("--examples", metavar="COLUMN", help="column of .obs with a few known labels")
    group.add_argument("--group-key", metavar="COLUMN", help="column of .obs; rows of a group are scored together")
    group.add_argument(
        "--min-confidence", type=_fraction, metavar="P", help="tiles below this confidence get no label (0 to 1)"
    )
    group.add_argument("--min-margin", type=_fraction, metavar="P", help="the same for the margin to the next label")
    group.add_argument(
        "--unknown",
        choices=["abstain", "label"],
        help="what tiles get that are unlike the training tissue: no label, or the best one",
    )
    group.add_argument("--level", type=_terms, metavar="A,B", help="coarser terms of the ontology that replace labels")
    group.add_argument("--rollup", action="store_true", help="uncertain tiles get a coarser term instead of no label")
    group.add_argument("--embedding-key", metavar="KEY", help="key of .obsm with an embedding by this model")
    group.add_argument("--layer", metavar="NAME", help="layer with raw counts")
    group.add_argument(
        "--key-added", type=_key, default="sw_label", metavar="NAME", help="column of .obs to write (default: sw_label)"
    )


def _reading(group: _ArgumentGroup) -> None:
    group.add_argument("--mpp", type=_mpp, metavar="UM", help="microns per pixel (default: what the file states)")
    group.add_argument("--page", type=_whole, metavar="N", help="which image of a file that holds several, from 0")
    group.add_argument(
        "--tile-um", type=_size, metavar="UM", help="edge of the tiles in microns (default: that of the model)"
    )
    group.add_argument(
        "--stride-um", type=_size, metavar="UM", help="distance of neighbouring tiles (default: their edge)"
    )
    group.add_argument(
        "--min-tissue", type=_fraction, metavar="P", help="least fraction of tissue in a tile (default: 0.5)"
    )
    group.add_argument(
        "--section", metavar="NAME", help="section for QuPath and report, of an object that holds several"
    )
    for name, what in (
        ("table-key", "table of a SpatialData"),
        ("image-key", "image to read"),
        ("coordinate-system", "coordinate system in which shapes and image of a SpatialData meet"),
        ("library-key", "column of .obs that names the library of each row of an AnnData"),
    ):
        group.add_argument(f"--{name}", metavar="NAME", help=what)
    group.add_argument(
        "--spot-pitch-um", type=_size, metavar="UM", help="distance of neighbouring spots, from which --mpp follows"
    )


def _computing(group: _ArgumentGroup) -> None:
    group.add_argument(
        "--device", metavar="NAME", help="torch device, such as cpu or cuda (default: CUDA if there is one)"
    )
    group.add_argument("--batch-size", type=_positive_whole, metavar="N", help="tiles in one pass (default: 256)")
    group.add_argument(
        "--cluster",
        type=_cluster,
        metavar="N|ADDRESS",
        help="distribute slides over N processes of this machine, or over the workers of the dask scheduler at an address (tcp://host:8786) "
        "or in its file",
    )
    group.add_argument("--offline", action="store_true", help="download nothing")
    group.add_argument("--quiet", action="store_true", help="no remarks and no progress bar; warnings and results only")


def _debug(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--debug", action="store_true", help="show where in the program an error occurred")


# ------------------------------------------------------------------------------------------------- values


def _labels_of(text: str) -> list[str]:
    names = _terms(text)
    if len(names) < 2:
        raise argparse.ArgumentTypeError(f"at least two labels are needed, separated by commas; found {text!r}")
    return names


def _terms(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"an empty name in {text!r}")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise argparse.ArgumentTypeError(f"{', '.join(repeated)} stands there more than once")
    return names


def _size(text: str) -> float:
    value = _number(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be above 0; found {text!r}")
    return value


def _mpp(text: str) -> float:
    from spatialwhisperer._access.sections.scale import check_mpp

    return _checked(_size(text), check_mpp)


def _key(text: str) -> str:
    from spatialwhisperer._checks.values import check_key_added

    return _checked(text, check_key_added)


def _checked(value: T, check: Callable[[Any], None]) -> T:
    """The value, where the check of the package lets it pass. Checks are imported where they are used, for the sake of a quick help."""
    try:
        check(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return value


def _fraction(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1; found {text!r}")
    return value


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a number; found {text!r}")
    return value


def _whole(text: str) -> int:
    # digits of other scripts are digits to Python too
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"must be a whole number; found {text!r}")
    return int(text)


def _cluster(text: str) -> str:
    if not text.strip() or text.isdecimal() and not int(text):
        raise argparse.ArgumentTypeError("must be a number of processes, 1 or more, or the address of a scheduler")
    return text


def _positive_whole(text: str) -> int:
    from spatialwhisperer._checks.values import check_batch_size

    value = _whole(text)
    if not value:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return _checked(value, check_batch_size)
