"""Command line of the benchmarks."""

from __future__ import annotations

import argparse
from pathlib import Path


def main(arguments: list[str] | None = None) -> None:
    """Run a benchmark by name."""
    parser = argparse.ArgumentParser(prog="python -m spatialwhisperer.protocols", description=__doc__)
    commands = parser.add_subparsers(dest="benchmark", required=True)
    _annotation(commands)
    _low_data(commands)
    _held_out(commands)
    _her2st(commands)
    _batches(commands)
    options = vars(parser.parse_args(arguments))
    options.pop("run")(options)


def _annotation(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "annotation",
        help="label images without image–text pairs: real sections that were not in training, or a published benchmark with a "
        "model of your own",
    )
    _common(parser, "annotation")
    parser.add_argument(
        "--nulls", type=int, default=50, help="shufflings of the image–gene pairs of each split (her2st)"
    )
    parser.add_argument("--dataset", default="her2st", choices=["her2st", "lizard", "pannuke", "pathocell"])
    cells = parser.add_argument_group("lizard, pannuke and pathocell")
    cells.add_argument("--model", help="model folder, or name on the hub")
    cells.add_argument(
        "--prompts", nargs="+", default=["terms1"], choices=["terms1", "terms2", "tissue", "raw"], help="sets of words"
    )
    cells.add_argument("--images", nargs="+", default=[], help="names; those of the published benchmark if not given")
    cells.add_argument(
        "--field",
        default="tile",
        choices=["tile", "model"],
        help="what the encoder sees: the 224-px tile as it is (as published), or the microns that the model was trained on",
    )
    cells.add_argument(
        "--statistics",
        default="dataset",
        choices=["dataset", "image"],
        help="rows over which image features are standardised, for a model that does so",
    )
    cells.add_argument(
        "--windows", default="quarters", choices=["quarters", "corners"], help="tiles of a PanNuke patch"
    )
    cells.add_argument("--weights", type=Path, help="local weights of the image encoder (uni2-h is gated)")
    parser.set_defaults(run=_run_annotation)


def _low_data(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "low-data", help="how much of one pair is needed, alone and with the pairs that bridge it"
    )
    _common(parser, "low_data")
    parser.set_defaults(run=_run_low_data)


def _held_out(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("held-out", help="the recipe of the embedded model on patients that it has not seen")
    _common(parser, "held_out", seeds=False)
    parser.add_argument("--gene-encoder", default="scvi", choices=["pca", "scvi"])
    parser.add_argument("--seed", type=int, default=0, help="of scVI; the rest has none")
    parser.set_defaults(run=_run_held_out)


def _her2st(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("her2st", help="compare the presets: expression, spatial domains, patch classes")
    _common(parser, "her2st")
    parser.add_argument("--presets", nargs="*", default=[], help="names; all if not given")
    parser.add_argument("--split", nargs="*", default=["section", "patient"], choices=["section", "patient"])
    parser.add_argument("--protocol", nargs="*", default=["strict"], choices=["strict", "peer"])
    parser.add_argument(
        "--features",
        nargs="*",
        default=["stain_texture"],
        help="stain_texture, mobilenet_v2 (weights/ in the data folder), both, any timm model whose weights are here, or "
        "trained:NAME, a timm model that is trained end to end",
    )
    parser.add_argument("--epochs", type=int, help="of trained:NAME; those of the preset if not given")
    parser.add_argument("--spots", type=int, help="of each training section, for trained:NAME; all if not given")
    parser.add_argument("--batch-size", type=int, help="of trained:NAME")
    parser.add_argument("--pretrained", action="store_true", help="start trained:NAME from its published weights")
    parser.set_defaults(run=_run_her2st)


def _batches(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("batches", help="how far scVI and scANVI bring eight patients together")
    _common(parser, "batches", seeds=False)
    parser.set_defaults(run=_run_batches)


def _common(parser: argparse.ArgumentParser, name: str, *, seeds: bool = True) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder with the data")
    parser.add_argument("--out", type=Path, default=Path("results"), help=f"folder for {name}.csv and {name}.md")
    if seeds:
        parser.add_argument("--seeds", type=int, default=3, help="training runs of each split")
    parser.add_argument("--smoke", action="store_true", help="one split, one seed, few spots: shows that it runs")


def _run_annotation(o: dict) -> None:
    if o["dataset"] == "her2st":
        if o["model"] is not None:
            raise SystemExit("--model belongs to --dataset lizard, pannuke or pathocell; her2st trains its own models.")
        from spatialwhisperer.protocols.annotation import run

        run(o["data"], o["out"], n_seeds=o["seeds"], n_nulls=o["nulls"], smoke=o["smoke"])
        return
    if o["model"] is None:
        raise SystemExit(
            f"--dataset {o['dataset']} needs --model FOLDER, a model that sw.tl.train or model.save wrote."
        )
    from spatialwhisperer.protocols import cells

    options = cells.Options(
        tuple(o["images"]), o["field"], o["statistics"], o["windows"], o["weights"], smoke=o["smoke"]
    )
    cells.run(o["dataset"], o["data"], o["out"], model=o["model"], prompts=o["prompts"], options=options)


def _run_low_data(o: dict) -> None:
    from spatialwhisperer.protocols.low_data import run

    run(o["data"], o["out"], n_seeds=o["seeds"], smoke=o["smoke"])


def _run_held_out(o: dict) -> None:
    from spatialwhisperer.protocols.held_out import run

    run(o["data"], o["out"], gene_encoder=o["gene_encoder"], seed=o["seed"], smoke=o["smoke"])


def _run_her2st(o: dict) -> None:
    from spatialwhisperer.protocols.her2st import run
    from spatialwhisperer.protocols.her2st_towers import TowerOptions

    run(
        o["data"],
        o["out"],
        presets=o["presets"],
        splits=o["split"],
        protocols=o["protocol"],
        features=o["features"],
        n_seeds=o["seeds"],
        towers=TowerOptions(o["epochs"], o["spots"], o["pretrained"], o["batch_size"]),
        smoke=o["smoke"],
    )


def _run_batches(o: dict) -> None:
    from spatialwhisperer.protocols.batches import run

    run(o["data"], o["out"], smoke=o["smoke"])


if __name__ == "__main__":
    main()
