"""Command line of the protocols: ``python -m spatialwhisperer.protocols <name> --data FOLDER``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialwhisperer.protocols.benchmarks import commands as benchmarks
from spatialwhisperer.protocols.papers import commands as papers

if TYPE_CHECKING:
    from collections.abc import Sequence

Commands = argparse._SubParsersAction


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a protocol by name."""
    parser = argparse.ArgumentParser(
        prog="python -m spatialwhisperer.protocols", description="Measure the package on real sections."
    )
    commands = parser.add_subparsers(dest="protocol_name", required=True)
    _nested(commands)
    _annotation(commands)
    _low_data(commands)
    _held_out(commands)
    _paraphrases(commands)
    _ablate(commands)
    _guard(commands)
    _her2st(commands)
    _peers(commands)
    _her2st_regression(commands)
    _batches(commands)
    _scale(commands)
    _nuclei(commands)
    _nuclei_words(commands)
    _olfactory_bulb(commands)
    _coverage(commands)
    _refine(commands)
    benchmarks.add(commands)
    papers.add(commands)
    options = vars(parser.parse_args(arguments))
    options.pop("run")(options)


def _nested(commands: Commands) -> None:
    parser = commands.add_parser(
        "nested",
        help="label sections that no choice has seen: recipes are chosen on the training sections, and reported beside darkness, "
        "a ridge, probes and shuffled pairs",
    )
    _common(parser, "nested", seeds=False)
    parser.add_argument("--gene-encoder", default="pca", choices=["pca", "scvi"])
    parser.add_argument("--nulls", type=int, default=50, help="shufflings of the image–gene pairs of each outer fold")
    parser.add_argument("--seed", type=int, default=0, help="seed of scVI; nothing else is random")
    parser.set_defaults(run=_run_nested)


def _annotation(commands: Commands) -> None:
    parser = commands.add_parser(
        "annotation",
        help="label images without image–text pairs: real sections that were not in training, or a published benchmark with a "
        "model of your own",
    )
    _common(parser, "annotation")
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


def _low_data(commands: Commands) -> None:
    parser = commands.add_parser(
        "low-data", help="how many pairs of one kind are needed, alone and with the pairs of the other kinds"
    )
    _common(parser, "low_data")
    parser.set_defaults(run=_run_low_data)


def _guard(commands: Commands) -> None:
    parser = commands.add_parser(
        "guard",
        help="how well tissue that the embedded model does not know is told from breast sections of left-out patients",
    )
    _common(parser, "guard", seeds=False)
    parser.set_defaults(run=_run_guard)


def _held_out(commands: Commands) -> None:
    parser = commands.add_parser("held-out", help="the recipe of the embedded model on patients that it has not seen")
    _common(parser, "held_out", seeds=False)
    parser.add_argument("--gene-encoder", default="scvi", choices=["pca", "scvi"])
    parser.add_argument("--seed", type=int, default=0, help="seed of scVI; nothing else is random")
    parser.set_defaults(run=_run_held_out)


def _paraphrases(commands: Commands) -> None:
    parser = commands.add_parser(
        "paraphrases", help="how well classes are found by words that the recipe of the embedded model has not seen"
    )
    _common(parser, "paraphrases", seeds=False)
    parser.add_argument("--gene-encoder", default="pca", choices=["pca", "scvi"])
    parser.add_argument("--seed", type=int, default=0, help="seed of scVI; nothing else is random")
    parser.set_defaults(run=_run_paraphrases)


def _ablate(commands: Commands) -> None:
    parser = commands.add_parser(
        "ablate", help="what each part of the recipe of the embedded model contributes: one changed at a time"
    )
    _common(parser, "ablation", seeds=False)
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="parts that are changed (default: all)")
    parser.add_argument("--slow", action="store_true", help="also scVI, and a text encoder that is trained")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random")
    parser.set_defaults(run=_run_ablate)


def _her2st(commands: Commands) -> None:
    parser = commands.add_parser("her2st", help="compare the presets: expression, spatial domains, patch classes")
    _common(parser, "her2st")
    parser.add_argument("--presets", nargs="*", default=[], help="names of presets (default: all)")
    parser.add_argument("--split", nargs="*", default=["section", "patient"], choices=["section", "patient"])
    parser.add_argument("--protocol", nargs="*", default=["strict"], choices=["strict", "peer"])
    parser.add_argument(
        "--features",
        nargs="*",
        default=["stain_texture"],
        help="stain_texture, mobilenet_v2 (weights/ in the data folder), both, any timm model whose weights are here, or "
        "trained:NAME, a timm model that is trained end to end",
    )
    parser.add_argument("--epochs", type=int, help="epochs of trained:NAME (default: those of the preset)")
    parser.add_argument("--spots", type=int, help="spots of each training section, for trained:NAME (default: all)")
    parser.add_argument("--batch-size", type=int, help="pairs in a step of trained:NAME (default: that of the preset)")
    parser.add_argument("--pretrained", action="store_true", help="start trained:NAME from its published weights")
    parser.set_defaults(run=_run_her2st)


def _peers(commands: Commands) -> None:
    parser = commands.add_parser(
        "peers",
        help="what training an image network end to end adds to the same network frozen, for the published presets",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds her2st/")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for peers.csv and peers.md")
    parser.add_argument("--presets", nargs="*", default=[], help="names of presets (default: all that train a network)")
    parser.add_argument("--network", help="timm model for all presets (default: that of each paper)")
    parser.add_argument("--pretrained", action="store_true", help="start from the published weights of the network")
    parser.add_argument("--epochs", type=int, help="epochs (default: those of the preset)")
    parser.add_argument("--batch-size", type=int, help="pairs in a step (default: that of the preset)")
    parser.add_argument("--spots", type=int, help="spots of each training section (default: all)")
    parser.add_argument("--tile-px", type=int, help="pixels of a tile of 154 µm (default: 224)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random")
    parser.add_argument("--smoke", action="store_true", help="few spots, small tiles, few epochs: shows that it runs")
    parser.set_defaults(run=_run_peers)


def _her2st_regression(commands: Commands) -> None:
    parser = commands.add_parser(
        "her2st-regression", help="what image features of its own add to the regression of expression"
    )
    _common(parser, "her2st_regression", seeds=False)
    parser.set_defaults(run=_run_her2st_regression)


def _batches(commands: Commands) -> None:
    parser = commands.add_parser("batches", help="how far scVI and scANVI bring eight patients together")
    _common(parser, "batches", seeds=False)
    parser.set_defaults(run=_run_batches)


def _scale(commands: Commands) -> None:
    parser = commands.add_parser(
        "scale", help="how often a wrong scale is noticed by the spots, and a correct one suspected"
    )
    _common(parser, "scale", seeds=False)
    parser.set_defaults(run=_run_scale)


def _nuclei(commands: Commands) -> None:
    parser = commands.add_parser("nuclei", help="nuclei that are found on H&E against those that people drew")
    _common(parser, "nuclei", seeds=False)
    parser.add_argument("--method", default="watershed", choices=["watershed", "instanseg"])
    parser.add_argument("--weights", type=Path, help="local weights of the method")
    parser.set_defaults(run=_run_nuclei)


def _nuclei_words(commands: Commands) -> None:
    parser = commands.add_parser(
        "nuclei-words", help="learn the words of nuclei that the image encoder nuclei comes with"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds her2st/")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for words.safetensors")
    parser.add_argument("--smoke", action="store_true", help="one section: shows that it runs")
    parser.set_defaults(run=_run_nuclei_words)


def _olfactory_bulb(commands: Commands) -> None:
    parser = commands.add_parser(
        "olfactory-bulb", help="layers, few labels, spatial domains and expression in the mouse olfactory bulb"
    )
    _common(parser, "olfactory_bulb")
    parser.set_defaults(run=_run_olfactory_bulb)


def _coverage(commands: Commands) -> None:
    parser = commands.add_parser(
        "coverage", help="how often the intervals that the package reports hold the true value, on simulated sections"
    )
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for coverage.csv and coverage.md")
    parser.add_argument("--repeats", type=int, default=1000, help="simulated sections for each interval and smoothness")
    parser.add_argument("--smoke", action="store_true", help="thirty sections: shows that it runs")
    parser.set_defaults(run=_run_coverage)


def _refine(commands: Commands) -> None:
    parser = commands.add_parser(
        "refine", help="contrastive refinement against its closed form, on real sections and in simulated worlds"
    )
    _common(parser, "refinement")
    parser.add_argument(
        "--parts", nargs="+", default=["sections", "worlds"], choices=["sections", "worlds"], help="what is run"
    )
    parser.add_argument("--sizes", nargs="+", type=int, help="numbers of image–gene pairs in the simulated worlds")
    parser.set_defaults(run=_run_refine)


def _common(parser: argparse.ArgumentParser, name: str, *, seeds: bool = True) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder with the data")
    parser.add_argument("--out", type=Path, default=Path("results"), help=f"folder for {name}.csv and {name}.md")
    if seeds:
        parser.add_argument("--seeds", type=int, default=3, help="training runs of each split")
    parser.add_argument("--smoke", action="store_true", help="one split, one seed, few spots: shows that it runs")


def _run_nested(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols.nested import comparison

    comparison.run(
        o["data"], o["out"], gene_encoder=o["gene_encoder"], n_nulls=o["nulls"], seed=o["seed"], smoke=o["smoke"]
    )


def _run_annotation(o: dict[str, Any]) -> None:
    if o["dataset"] == "her2st":
        if o["model"] is not None:
            raise SystemExit("--model belongs to --dataset lizard, pannuke or pathocell; her2st trains its own models.")
        from spatialwhisperer.protocols.annotation import zero_shot

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
    from spatialwhisperer.protocols.annotation import cell_images

    options = cell_images.Options(
        tuple(o["images"]), o["field"], o["statistics"], o["windows"], o["weights"], smoke=o["smoke"]
    )
    cell_images.run(o["dataset"], o["data"], o["out"], model=o["model"], prompts=o["prompts"], options=options)


def _run_low_data(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols.annotation import low_data

    low_data.run(o["data"], o["out"], n_seeds=o["seeds"], smoke=o["smoke"])


def _run_guard(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols.annotation import guard

    guard.run(o["data"], o["out"], smoke=o["smoke"])


def _run_held_out(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols.default_model import held_out

    held_out.run(o["data"], o["out"], gene_encoder=o["gene_encoder"], seed=o["seed"], smoke=o["smoke"])


def _run_paraphrases(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols.wordings import paraphrases

    paraphrases.run(o["data"], o["out"], gene_encoder=o["gene_encoder"], seed=o["seed"], smoke=o["smoke"])


def _run_ablate(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols.ablation import comparison
    from spatialwhisperer.protocols.ablation.variants import PARTS

    if unknown := [part for part in o["only"] if part not in PARTS]:
        raise SystemExit(f"--only knows no part {unknown[0]!r}; choose among {', '.join(map(repr, PARTS))}.")
    comparison.run(o["data"], o["out"], parts=tuple(o["only"]), slow=o["slow"], seed=o["seed"], smoke=o["smoke"])


def _run_her2st(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols.her2st import comparison
    from spatialwhisperer.protocols.her2st.trained_networks import NetworkOptions

    comparison.run(
        o["data"],
        o["out"],
        presets=o["presets"],
        splits=o["split"],
        protocols=o["protocol"],
        features=o["features"],
        n_seeds=o["seeds"],
        networks=NetworkOptions(o["epochs"], o["spots"], o["pretrained"], o["batch_size"]),
        smoke=o["smoke"],
    )


def _run_peers(o: dict[str, Any]) -> None:
    from dataclasses import replace

    from spatialwhisperer.protocols.her2st import end_to_end

    size = end_to_end.SMOKE if o["smoke"] else end_to_end.Options()
    stated = {name: o[name] for name in ("epochs", "batch_size", "spots", "tile_px") if o[name] is not None}
    options = replace(size, network=o["network"], pretrained=o["pretrained"], seed=o["seed"], **stated)
    end_to_end.run(o["data"], o["out"], presets=o["presets"], options=options)


def _run_her2st_regression(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols.her2st import regression

    regression.run(o["data"], o["out"], smoke=o["smoke"])


def _run_batches(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols import batches

    batches.run(o["data"], o["out"], smoke=o["smoke"])


def _run_scale(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols import scale

    scale.run(o["data"], o["out"], smoke=o["smoke"])


def _run_nuclei(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols import nuclei

    nuclei.run(o["data"], o["out"], method=o["method"], weights=o["weights"], smoke=o["smoke"])


def _run_nuclei_words(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols import nuclei_words

    nuclei_words.run(o["data"], o["out"], smoke=o["smoke"])


def _run_olfactory_bulb(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols.olfactory_bulb import comparison

    comparison.run(o["data"], o["out"], n_seeds=o["seeds"], smoke=o["smoke"])


def _run_coverage(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols import coverage

    coverage.run(o["out"], repeats=o["repeats"], smoke=o["smoke"])


def _run_refine(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols.refinement import comparison

    sizes = comparison.SIZES if o["sizes"] is None else tuple(o["sizes"])
    comparison.run(o["data"], o["out"], n_seeds=o["seeds"], sizes=sizes, parts=tuple(o["parts"]), smoke=o["smoke"])


if __name__ == "__main__":
    main()
