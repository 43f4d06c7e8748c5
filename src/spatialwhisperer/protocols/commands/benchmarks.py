"""Command lines of the benchmarks on a folder of sections."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    from spatialwhisperer.protocols.commands.common import Commands


def add(commands: Commands) -> None:
    """Add the commands ``hest-bench``, ``retrieval`` and ``card``."""
    _hest_bench(commands)
    _retrieval(commands)
    _card(commands)


def _hest_bench(commands: Commands) -> None:
    parser = commands.add_parser(
        "hest-bench",
        help="expression by ridge regression on any image encoders and any folder in the layout of HEST, patients left out",
    )
    _folder(parser, "hest_bench")
    _encoders(parser)
    _splits(parser)
    parser.add_argument(
        "--genes", type=Path, help="JSON file with the genes (default: the 50 most variable in training)"
    )
    parser.add_argument(
        "--rank",
        default="dispersion",
        choices=["dispersion", "variance"],
        help="how the most variable genes are found: the rule of HEST, or the largest variance of normalised expression",
    )
    parser.add_argument("--gene-sets", type=Path, help="GMT file of gene sets whose scores are compared")
    parser.set_defaults(run=_run_hest_bench)


def _retrieval(commands: Commands) -> None:
    parser = commands.add_parser(
        "retrieval",
        help="how often an image finds its own expression, and expression its image, in patients that were left out (as HESCAPE asks)",
    )
    _folder(parser, "retrieval")
    _encoders(parser)
    _splits(parser)
    parser.add_argument(
        "--gene-encoders",
        nargs="+",
        default=[],
        metavar="NAME",
        help="pca, scvi, drvi, … (default: those of the presets)",
    )
    parser.add_argument("--presets", nargs="+", default=["whisperer"], metavar="NAME", help="names of presets")
    parser.add_argument("--epochs", type=int, help="epochs (default: those of the preset)")
    parser.add_argument("--seeds", type=int, default=1, help="training runs of each fold")
    parser.set_defaults(run=_run_retrieval)


def _card(commands: Commands) -> None:
    parser = commands.add_parser(
        "card",
        help="what a folder of sections holds: patients, splits, duplicates, scale, floors and the ceiling of counting noise",
    )
    _folder(parser, "card", table="json")
    _splits(parser)
    parser.add_argument(
        "--encoder", default="stain_texture", metavar="NAME", help="image encoder of the ridge regression"
    )
    parser.set_defaults(run=_run_card)


def _folder(parser: argparse.ArgumentParser, name: str, *, table: str = "csv") -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder in the layout of HEST, or of her2st")
    parser.add_argument("--out", type=Path, default=Path("results"), help=f"folder for {name}.{table} and {name}.md")
    parser.add_argument("--sections", nargs="+", default=[], metavar="NAME", help="sections to read (default: all)")
    parser.add_argument(
        "--where",
        nargs="+",
        default=[],
        metavar="COLUMN=VALUE",
        help="sections whose metadata have these values, such as organ=Breast",
    )
    parser.add_argument("--metadata", metavar="FILE", help="table of the metadata, where the folder holds several")
    parser.add_argument("--rows", type=int, help="rows of each section, at even distances (default: all)")
    parser.add_argument("--tile-um", type=float, default=112.0, help="edge of a tile, or of the patches, in microns")
    parser.add_argument("--smoke", action="store_true", help="one fold, few rows: shows that it runs")


def _encoders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--encoders",
        nargs="+",
        default=["stain_texture"],
        metavar="NAME",
        help="image encoders by their registered names",
    )


def _splits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--split",
        default="patient",
        choices=["patient", "section"],
        help="what is left out; section measures sections of patients that also train, and says so",
    )
    parser.add_argument("--folds", type=int, help="number of folds (default: one for each patient, at most ten)")
    parser.add_argument(
        "--splits", type=Path, help="folder with train_<k>.csv and test_<k>.csv; a fold that leaks is refused"
    )


def _folder_options(o: dict[str, Any]) -> Any:
    from spatialwhisperer.protocols.benchmarks.folder.sections import FolderOptions

    pairs = [tuple(text.split("=", 1)) for text in o["where"]]
    if bad := [text for text, pair in zip(o["where"], pairs, strict=True) if len(pair) != 2]:
        raise SystemExit(f"--where takes COLUMN=VALUE, not {bad[0]!r}.")
    for name, value in (("--rows", o["rows"]), ("--tile-um", o["tile_um"])):
        if value is not None and not value > 0:
            raise SystemExit(f"{name} must be positive, not {value:g}.")
    return FolderOptions(
        only=tuple(o["sections"]),
        where=tuple(pairs),
        rows=o["rows"],
        tile_um=o["tile_um"],
        metadata=o["metadata"],
    )


def _split_options(o: dict[str, Any]) -> Any:
    from spatialwhisperer.protocols.benchmarks.expression_run import SplitOptions

    return SplitOptions(split=o["split"], n_folds=o["folds"], files=o["splits"])


def _run_hest_bench(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols.benchmarks import expression_run

    expression_run.run(
        o["data"],
        o["out"],
        encoders=o["encoders"],
        folder=_folder_options(o),
        splits=_split_options(o),
        genes=expression_run.GeneOptions(o["genes"], o["gene_sets"], o["rank"]),
        smoke=o["smoke"],
    )


def _run_retrieval(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols.benchmarks import retrieval

    towers = retrieval.Towers(tuple(o["presets"]), tuple(o["encoders"]), tuple(o["gene_encoders"]))
    retrieval.run(
        o["data"],
        o["out"],
        towers=towers,
        folder=_folder_options(o),
        splits=_split_options(o),
        n_seeds=o["seeds"],
        max_epochs=o["epochs"],
        smoke=o["smoke"],
    )


def _run_card(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols.benchmarks import card

    card.run(
        o["data"],
        o["out"],
        encoder=o["encoder"],
        folder=_folder_options(o),
        splits=_split_options(o),
        smoke=o["smoke"],
    )
