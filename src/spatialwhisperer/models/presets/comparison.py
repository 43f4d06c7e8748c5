"""The presets beside what was published: one table, made from the presets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialwhisperer.models.presets.catalogue import get_preset

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from spatialwhisperer.models.configuration.parts import Preset

_UNKNOWN = "not stated"

_BLEEP = {
    "image encoder": "ResNet-50, ImageNet, trained",
    "gene encoder": "expression",
    "joint space": "256",
    "learning rate, heads": "0.001",
    "learning rate, encoders": "0.001",
    "weight decay": "0.001, all parameters",
    "schedule": "constant",
    "batch": "128 on each of 4 devices, last one dropped",
    "weights": "best epoch on a random fifth of the spots",
    "image features": "as they are",
    "augmentation": "flips, right angles",
}
_TPIRBAE = {
    "image encoder": "ResNet-50, as we infer; frozen or trained: not stated",
    "gene encoder": "scVI or scANVI; ZINB is the default of scvi-tools",
    "augmentation": _UNKNOWN,
}

PUBLISHED: dict[str, dict[str, str]] = {
    "spatialwhisperer": {
        "image encoder": "UNI2-h, frozen",
        "gene encoder": "Geneformer 12L-30M, frozen",
        "text encoder": "BioBERT, pooler output, trained",
        "joint space": "2048 (an earlier and a later model card say 2048 and 512)",
        "learning rate, heads": "1e-05",
        "learning rate, encoders": "1e-05",
        "weight decay": "none",
        "schedule": "cosine to 1/20, two warm-ups of 3 % of the steps",
        "batch": "512, last one dropped, natural mixture of the data sets",
        "equal captions": "negatives",
        "weights": "last epoch",
        "image features": "as they are",
        "augmentation": _UNKNOWN,
    },
    "mclstexp": _BLEEP
    | {
        "image encoder": "DenseNet-121, ImageNet, features before the last ReLU, trained",
        "learning rate, heads": "0.0001",
        "learning rate, encoders": "0.0001",
        "weight decay": "0.001, L2 in the gradient",
        "batch": "128, last one kept",
        "weights": "last epoch",
        "positions": "two tables of 65536 rows",
        "augmentation": "flips, any angle, colours",
    },
    "heclip-hvg": _BLEEP | {"joint space": "expression", "batch": "128, last one dropped"},
    "heclip-heg": _BLEEP | {"batch": "128, last one dropped"},
    "bleep": _BLEEP,
    "omiclip-predex": {
        "image encoder": "CoCa ViT-L/14, trained",
        "gene encoder": "sentences of the 50 strongest genes, without symbols with '.' or '-' and housekeeping genes",
        "learning rate, heads": "5e-06",
        "learning rate, encoders": "5e-06",
        "weight decay": "0.1",
        "schedule": "10 steps of warm-up",
        "batch": "64",
        "weights": "last epoch",
        "image features": "as they are",
        "augmentation": "colours",
    },
    "tpirbae-scvi-clip": _TPIRBAE,
    "tpirbae-scvi-soft": _TPIRBAE,
    "tpirbae-scanvi-clip": _TPIRBAE,
    "tpirbae-scanvi-soft": _TPIRBAE,
}
"""What papers and published code state, by preset."""


def compare_protocols() -> pd.DataFrame:
    """Set each preset beside what was published.

    Returns
    -------
    DataFrame with a row for each preset and part of the recipe, and the columns "published" (paper and published code), "peer" and
    "strict" (the two protocols of :func:`get_preset`).

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sw.models.compare_protocols().loc[("mclstexp", "batch")].tolist()
    ['128, last one kept', '128, last one kept', '128, last one dropped']
    """
    import pandas as pd

    rows: dict[tuple[str, str], tuple[str, str, str]] = {}
    for name, stated in PUBLISHED.items():
        peer, strict = (_parts(get_preset(name, protocol)) for protocol in ("peer", "strict"))
        rows |= {(name, part): (text, peer[part], strict[part]) for part, text in stated.items()}
    index = pd.MultiIndex.from_tuples(list(rows), names=["preset", "part"])
    return pd.DataFrame(list(rows.values()), index, ["published", "peer", "strict"])


def _parts(preset: Preset) -> Mapping[str, str]:
    """The parts of a preset in words."""
    recipe = preset.joint
    batch = [f"{recipe.batch_size}", f"last one {'kept' if recipe.last_batch == 'keep' else 'dropped'}"]
    if "text" in recipe.heads and any("text" in pair for pair in preset.pairs):
        batch.append(f"{recipe.mixture} mixture")
    return {
        "image encoder": f"{preset.image_encoder}, {_TRAINED[preset.letter('image')]}",
        "gene encoder": _gene_encoder(preset),
        "text encoder": f"{preset.text_encoder}, {_TRAINED[preset.letter('text')]}",
        "joint space": "expression" if recipe.projection_dim is None else f"{recipe.projection_dim}",
        "learning rate, heads": f"{recipe.learning_rate:g}",
        "learning rate, encoders": f"{recipe.tower_learning_rate:g}",
        "weight decay": _decay(preset),
        "schedule": recipe.schedule + _warmup(recipe.warmup),
        "batch": ", ".join(batch),
        "equal captions": "positives: the same loss, as equal captions have equal embeddings",
        "weights": "last epoch" if recipe.select == "last" else "best epoch on a random fifth of the pairs",
        "positions": _positions(preset),
        "image features": _STANDARDIZED[preset.standardize["image"]],
        "augmentation": _augmentation(preset),
    }


_TRAINED = {"L": "frozen", "U": "trained", "u": "trained from random weights"}
_STANDARDIZED = {"none": "as they are", "global": "training z-scores", "section": "z-scores within each section"}


def _gene_encoder(preset: Preset) -> str:
    parts = [preset.gene_encoder]
    if likelihood := preset.gene_options.get("gene_likelihood"):
        parts.append(str(likelihood))
    if preset.gene_options.get("drop") == "peer":
        parts.append("without symbols with '.' or '-'")
    return ", ".join([*parts, _TRAINED[preset.letter("gene")]])


def _decay(preset: Preset) -> str:
    recipe = preset.joint
    if not recipe.weight_decay:
        return "none"
    where = "L2 in the gradient" if recipe.optimizer == "adam" else _DECAYS[recipe.decay]
    return f"{recipe.weight_decay:g}, {where}"


_DECAYS = {"all": "all parameters", "matrices": "matrices only"}


def _warmup(warmup: float) -> str:
    if not warmup:
        return ""
    return f", {warmup:g} steps of warm-up" if warmup >= 1 else f", warm-up of {100 * warmup:g} % of the steps"


def _positions(preset: Preset) -> str:
    if preset.context.kind == "batch_peer":
        return "two tables, larger ones on request"
    return f"offsets of {preset.context.options.get('n_neighbours', 0)} neighbours"


def _augmentation(preset: Preset) -> str:
    change = preset.augmentation
    if change is None:
        return "none"
    parts = {
        "flips": change.flips,
        "right angles": change.right_angles,
        "any angle": change.rotation > 0,
        "stains": change.changes_stains,
        "colours": change.changes_colours,
    }
    return ", ".join(part for part, there in parts.items() if there)
