"""Protocols of labels and of the recipe of the embedded model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialwhisperer.protocols.commands.common import common

if TYPE_CHECKING:
    from spatialwhisperer.protocols.commands.common import Commands


def add(commands: Commands) -> None:
    """Add the commands of this file."""
    _nested(commands)
    _annotation(commands)
    _low_data(commands)
    _held_out(commands)
    _paraphrases(commands)
    _ablate(commands)
    _guard(commands)


def _nested(commands: Commands) -> None:
    parser = commands.add_parser(
        "nested",
        help="label sections that no choice has seen: recipes are chosen on the training sections, and reported beside darkness, "
        "a ridge, probes and shuffled pairs",
    )
    common(parser, "nested", seeds=False)
    parser.add_argument("--gene-encoder", default="pca", choices=["pca", "scvi"])
    parser.add_argument("--nulls", type=int, default=50, help="shufflings of the image–gene pairs of each outer fold")
    parser.add_argument("--seed", type=int, default=0, help="seed of scVI; nothing else is random")
    parser.set_defaults(run=_run_nested)


def _run_nested(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols.nested import comparison

    comparison.run(
        o["data"], o["out"], gene_encoder=o["gene_encoder"], n_nulls=o["nulls"], seed=o["seed"], smoke=o["smoke"]
    )


def _annotation(commands: Commands) -> None:
    parser = commands.add_parser(
        "annotation",
        help="label images without image–text pairs: real sections that were not in training, or a published benchmark with a "
        "model of your own",
    )
    common(parser, "annotation")
    parser.add_argument(
        "--nulls", type=int, default=50, help="shufflings of the image–gene pairs of each split (her2st)"
    )
    parser.add_argument(
        "--baselines",
        nargs="+",
        default=[],
        metavar="NAME",
        help="published models of images and texts beside the others, where their files are on this machine: keep, plip, "
        "quiltnet-b32, biomedclip, omiclip (her2st)",
    )
    parser.add_argument("--dataset", default="her2st", choices=["her2st", "lizard", "pannuke", "pathocell"])
    cells = parser.add_argument_group("lizard, pannuke and pathocell")
    cells.add_argument("--model", help="folder of a model, or its name on the Hugging Face hub")
    cells.add_argument(
        "--prompts",
        nargs="+",
        default=["terms1"],
        choices=["terms1", "terms2", "tissue", "raw"],
        help="sets of prompts",
    )
    cells.add_argument(
        "--images", nargs="+", default=[], help="names of images (default: those of the published benchmark)"
    )
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


def _run_annotation(o: dict[str, Any]) -> None:
    if o["dataset"] == "her2st":
        if o["model"] is not None:
            raise SystemExit("--model belongs to --dataset lizard, pannuke or pathocell; her2st trains its own models.")
        from spatialwhisperer.protocols.annotation.zero_shot import measure as zero_shot

        zero_shot.run(
            o["data"], o["out"], n_seeds=o["seeds"], n_nulls=o["nulls"], baselines=o["baselines"], smoke=o["smoke"]
        )
        return
    if o["baselines"]:
        raise SystemExit("--baselines belongs to --dataset her2st; the others label with the model that --model names.")
    if o["model"] is None:
        raise SystemExit(
            f"--dataset {o['dataset']} needs --model FOLDER, a model that sw.tl.train or model.save wrote."
        )
    from spatialwhisperer.protocols.annotation.cell_images import measure as cell_images

    options = cell_images.Options(
        tuple(o["images"]), o["field"], o["statistics"], o["windows"], o["weights"], smoke=o["smoke"]
    )
    cell_images.run(o["dataset"], o["data"], o["out"], model=o["model"], prompts=o["prompts"], options=options)


def _low_data(commands: Commands) -> None:
    parser = commands.add_parser(
        "low-data", help="how many pairs of one kind are needed, alone and with the pairs of the other kinds"
    )
    common(parser, "low_data")
    parser.set_defaults(run=_run_low_data)


def _run_low_data(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols.annotation.low_data import measure as low_data

    low_data.run(o["data"], o["out"], n_seeds=o["seeds"], smoke=o["smoke"])


def _held_out(commands: Commands) -> None:
    parser = commands.add_parser("held-out", help="the recipe of the embedded model on patients that it has not seen")
    common(parser, "held_out", seeds=False)
    parser.add_argument("--gene-encoder", default="scvi", choices=["pca", "scvi"])
    parser.add_argument("--seed", type=int, default=0, help="seed of scVI; nothing else is random")
    parser.set_defaults(run=_run_held_out)


def _run_held_out(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols.default_model import held_out

    held_out.run(o["data"], o["out"], gene_encoder=o["gene_encoder"], seed=o["seed"], smoke=o["smoke"])


def _paraphrases(commands: Commands) -> None:
    parser = commands.add_parser(
        "paraphrases", help="how well classes are found by words that the recipe of the embedded model has not seen"
    )
    common(parser, "paraphrases", seeds=False)
    parser.add_argument("--gene-encoder", default="pca", choices=["pca", "scvi"])
    parser.add_argument("--seed", type=int, default=0, help="seed of scVI; nothing else is random")
    parser.set_defaults(run=_run_paraphrases)


def _run_paraphrases(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols.wordings import paraphrases

    paraphrases.run(o["data"], o["out"], gene_encoder=o["gene_encoder"], seed=o["seed"], smoke=o["smoke"])


def _ablate(commands: Commands) -> None:
    parser = commands.add_parser(
        "ablate", help="what each part of the recipe of the embedded model contributes: one changed at a time"
    )
    common(parser, "ablation", seeds=False)
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="parts that are changed (default: all)")
    parser.add_argument("--slow", action="store_true", help="also scVI, and a text encoder that is trained")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random")
    parser.set_defaults(run=_run_ablate)


def _run_ablate(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols.ablation import comparison
    from spatialwhisperer.protocols.ablation.variants import PARTS

    if unknown := [part for part in o["only"] if part not in PARTS]:
        raise SystemExit(f"--only knows no part {unknown[0]!r}; choose among {', '.join(map(repr, PARTS))}.")
    comparison.run(o["data"], o["out"], parts=tuple(o["only"]), slow=o["slow"], seed=o["seed"], smoke=o["smoke"])


def _guard(commands: Commands) -> None:
    parser = commands.add_parser(
        "guard",
        help="how well tissue that the embedded model does not know is told from breast sections of left-out patients",
    )
    common(parser, "guard", seeds=False)
    parser.set_defaults(run=_run_guard)


def _run_guard(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols.annotation.guard import measure as guard

    guard.run(o["data"], o["out"], smoke=o["smoke"])
