"""What training an image network end to end adds to the same network frozen, for each preset whose paper trains one.

Both runs of a preset start from the same weights and see the same spots, genes, epochs and seed; only the frozen one leaves the image
network as it is and trains the heads alone. Sections of one patient train, and another section is predicted.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer._messages import inform
from spatialwhisperer._random import isolated_rng
from spatialwhisperer.encoders.image.networks.module import ModuleEncoder
from spatialwhisperer.protocols.her2st.folds import FOLDS, TILE_UM, with_rows
from spatialwhisperer.protocols.her2st.frozen_features import choose_genes, predict
from spatialwhisperer.protocols.output import markdown, write_text
from spatialwhisperer.statistics.intervals.uncertainty import over_units

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from spatialdata import SpatialData

    from spatialwhisperer.models import GeneEncoder, ImageEncoder, Preset

PRESETS = ("bleep", "heclip-hvg", "heclip-heg", "mclstexp", "tpirbae-scvi-clip", "tpirbae-scvi-soft")
"""Presets whose image network is trained in their papers, without those that differ from another in the gene encoder alone."""

NETWORKS = {"mclstexp": "densenet121"}
"""Network of a preset, by the name in timm; the others have "resnet50"."""

FROZEN, TRAINED = "frozen", "trained"


@dataclass(frozen=True)
class Options:
    """How much is trained.

    Attributes
    ----------
    network
        Model of timm, or another image encoder, for all presets; ``None`` takes that of each paper.
    pretrained
        Start from its published weights.
    epochs, batch_size
        Epochs, and pairs in a step; ``None`` takes those of the preset.
    spots
        Spots of each training section; ``None`` takes all.
    tile_px
        Pixels of a tile of 154 µm.
    seed
        Seed of everything random.
    """

    network: str | None = None
    pretrained: bool = False
    epochs: int | None = None
    batch_size: int | None = None
    spots: int | None = None
    tile_px: int = 224
    seed: int = 0


SMOKE = Options(epochs=8, batch_size=32, spots=60, tile_px=48)


def run(data: Path, out: Path, *, presets: Sequence[str] = (), options: Options | None = None) -> pd.DataFrame:
    """Train each preset twice, and write ``peers.csv`` (one row per preset and gene) and ``peers.md``.

    Parameters
    ----------
    data
        Folder that holds her2st/.
    out
        Folder of the results.
    presets
        Names among `PRESETS`; none takes all.
    options
        How much is trained; ``None`` trains as published.

    Raises
    ------
    ValueError
        If a preset has no image network of its own.
    FileNotFoundError
        If the sections are not there.
    """
    options = options or Options()
    names = list(presets) or list(PRESETS)
    if unknown := [name for name in names if name not in PRESETS]:
        raise ValueError(
            f"No image network is trained for the preset {unknown[0]!r}; choose among {', '.join(PRESETS)}."
        )
    fold = FOLDS[3]
    train = [_spread(_section(n, data, out), options.spots) for n in fold.train]
    (test,) = (_section(n, data, out) for n in fold.test)
    table = pd.concat([_compare(name, train, test, options) for name in names], ignore_index=True)
    write_text(out / "peers.csv", table.to_csv(index=False))
    text = markdown(summary(table))
    write_text(out / "peers.md", text + "\n")
    print(text)
    return table


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row per preset: mean r over genes of both runs, and of their difference, with its 95 % interval over genes."""
    rows = {}
    for (name, network), part in table.groupby(["preset", "network"], sort=False):
        difference = (part[TRAINED] - part[FROZEN]).to_numpy()
        low, high = over_units(difference, np.arange(len(difference))).interval(float(difference.mean()))
        rows[f"`{name}`"] = {
            "network": network,
            "genes": len(part),
            FROZEN: f"{part[FROZEN].mean():.3f}",
            TRAINED: f"{part[TRAINED].mean():.3f}",
            "difference": f"{difference.mean():+.3f} [{low:+.3f}, {high:+.3f}]",
            "CPU s": f"{part['cpu_seconds'].iloc[0]:.0f}",
        }
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.index.name = "preset"
    return frame


def _compare(name: str, train: list[SpatialData], test: SpatialData, options: Options) -> pd.DataFrame:
    start = time.process_time()
    preset = sw.models.get_preset(name, "peer")
    tables = [s["table"] for s in train], [test["table"]]
    genes = choose_genes(preset, "strict", *tables)
    gene = _gene_encoder(preset, train, options)
    network = options.network or NETWORKS.get(name, "resnet50")
    encoder = _encoder(network, options)
    out: dict[str, Any] = {"preset": name, "network": network}
    for run_name, locking in ((FROZEN, "LLL"), (TRAINED, "LLU" if options.pretrained else "LLu")):
        inform(f"{name}, {network}, {run_name}")
        r = _pearson(_trained(preset, locking, train, encoder, gene, genes, options), test, tables[0])
        out |= {"gene": r.index, run_name: r.to_numpy()}
    return pd.DataFrame(out).assign(cpu_seconds=time.process_time() - start)


def _encoder(network: str, options: Options) -> ImageEncoder:
    """The network that both runs start from. A frozen encoder resizes tiles to its input, a trained one does not: here neither does."""
    with isolated_rng(options.seed):
        encoder = sw.models.open_encoder(network, "image", pretrained=options.pretrained)
    if not isinstance(encoder, ModuleEncoder):
        raise ValueError(f"{network!r} is no network that can be trained; name a model of timm.")
    return ModuleEncoder(encoder.network, replace(encoder.spec, input_px=None))


def _trained(
    preset: Preset,
    locking: str,
    train: list[SpatialData],
    encoder: ImageEncoder,
    gene: GeneEncoder | None,
    genes: list[str],
    options: Options,
) -> sw.models.Whisperer:
    changes: dict[str, Any] = {"pairs": [("image", "gene")], "locking": locking}
    if options.batch_size is not None:
        changes["batch_size"] = options.batch_size
    return sw.tl.train(
        train,
        preset=preset.replace(**changes),
        image=sw.tl.ImageFeatures(encoder, tile_um=TILE_UM, tile_px=options.tile_px),
        gene=gene,
        expression=sw.tl.ExpressionOptions(genes=genes, cross_validate=False),
        max_epochs=options.epochs,
        random_state=options.seed,
    )


def _pearson(model: sw.models.Whisperer, test: SpatialData, train: list[Any]) -> pd.Series:
    """Pearson's r of each gene on the held-out section; a constant prediction counts as 0."""
    found = sw.tl.evaluate_expression(test["table"], predict(test, model), train=train, baselines=False, per_gene=True)
    return found.set_index("gene")["pearson"].fillna(0.0)


def _gene_encoder(preset: Preset, train: list[SpatialData], options: Options) -> GeneEncoder | None:
    if preset.gene_encoder not in ("scvi", "scanvi"):
        return None
    return sw.pp.fit_gene_encoder(
        [s["table"] for s in train], preset.gene_encoder, n_latent=10, max_epochs=40, random_state=options.seed
    )


def _section(name: str, data: Path, out: Path) -> SpatialData:
    """A section in a zarr store, from which batches read chunks. A JPEG is decoded as a whole, and again in every batch."""
    from spatialdata import SpatialData

    store = out / "sections" / f"{name}.zarr"
    if not store.exists():
        half = store.with_suffix(".half")
        sw.datasets.her2st(name, data_dir=data).write(half, overwrite=True)
        half.rename(store)
    return SpatialData.read(store)


def _spread(section: SpatialData, spots: int | None) -> SpatialData:
    """The section with all spots, or with some at even distances in the table."""
    n = section["table"].n_obs
    return section if spots is None or spots >= n else with_rows(section, np.linspace(0, n - 1, spots).astype(int))
