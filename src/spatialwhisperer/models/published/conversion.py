"""From the published checkpoint to a folder of this package: safetensors and JSON, written once."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._messages import inform, progress
from spatialwhisperer._random import untouched_rng
from spatialwhisperer._storage.folders import beside, make_durable, put, sweep
from spatialwhisperer._storage.permissions import as_usual
from spatialwhisperer.encoders.catalogue import encoder_class, get_spec
from spatialwhisperer.encoders.recipe import EncoderIdentity, FeatureRecipe
from spatialwhisperer.encoders.text.bert import pooled_bert
from spatialwhisperer.models.configuration.model import Card, HeadConfig, ModalityConfig, ModelConfig
from spatialwhisperer.models.opening import fill
from spatialwhisperer.models.published.names import GENE, IMAGE, LICENCE, TEXT, TRAINED_ON
from spatialwhisperer.models.whisperer import Whisperer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from spatialwhisperer._storage.torch_files import TorchFile
    from spatialwhisperer.encoders.base import Encoder
    from spatialwhisperer.models.published.layout import Layout

TILE_UM, TILE_PX = 112.0, 224
MOST_TEXT_TOKENS = 128


@dataclass(frozen=True)
class Source:
    """A checkpoint that was found: where it lies, what it is called, and its SHA-256."""

    path: Path
    name: str
    sha256: str

    @classmethod
    def of(cls, path: Path, name: str) -> Source:
        """Read a file through once."""
        with path.open("rb") as file:
            return cls(path, name, hashlib.file_digest(file, "sha256").hexdigest())


def convert(
    source: Source, file: TorchFile, layout: Layout, tokenizer: Mapping[str, bytes] | None, folder: Path
) -> Path:
    """Write the model of a checkpoint to a folder, which appears whole or not at all.

    Parameters
    ----------
    source, file, layout
        The checkpoint, opened, and what it holds.
    tokenizer
        Files of the tokenizer of its text tower; ``None`` where it has none.
    folder
        Where to write.

    Returns
    -------
    The folder.

    Raises
    ------
    ValueError
        If tensors are cut off, changed, not finite or impossible, or the tokenizer is another one. Nothing is written then.
    """
    encoders: dict[str, Encoder] = {}
    with untouched_rng():
        if layout.text:
            encoders["text"] = pooled_bert(TEXT, layout.text_sizes, tokenizer or {}, MOST_TEXT_TOKENS)
        model = Whisperer(config_of(layout, source), encoders=encoders)
    names = {**layout.heads, **{f"towers.text.network.{name}": tensor for name, tensor in layout.text.items()}}
    bar = progress(names.items(), desc="reading the checkpoint", unit="tensor")
    arrays = {name: file.array(tensor) for name, tensor in bar}
    for name, d in layout.dims.items():
        arrays |= {f"{name}_mean": np.zeros(d, np.float32), f"{name}_std": np.ones(d, np.float32)}
    fill(model, arrays)
    _check_possible(arrays, source)
    return model.save(folder)


def _check_possible(arrays: Mapping[str, np.ndarray], source: Source) -> None:
    """Refuse finite numbers that no training leaves: a variance below zero, and a scale that is zero or infinite in float32."""
    for name, array in arrays.items():
        if name.endswith("running_var") and (array < 0).any():
            raise ValueError(
                f"{source.name} holds variances below zero ({name}, {array.min():g}): it was changed or damaged. Copy or download the "
                "file again."
            )
    with np.errstate(over="ignore", under="ignore"):
        scale = float(np.exp(np.asarray(arrays["log_scale"], np.float32)))
    if not 0 < scale < np.inf:
        raise ValueError(
            f"{source.name} states a temperature of {float(arrays['log_scale']):g}, whose exponential, the scale of the scores, is {scale:g} in "
            "float32 (training starts at 2.66): it was changed or damaged. Copy or download the file again."
        )


def config_of(layout: Layout, source: Source) -> ModelConfig:
    """Configuration of the model of a checkpoint."""
    recipes = {
        "gene": FeatureRecipe(_identity(GENE, "gene")),
        "image": FeatureRecipe(_identity(IMAGE, "image"), f"X_{IMAGE}", (TILE_UM,), TILE_PX, "nan"),
        # a locked tower is the published one, whose name stands for its pooler output
        "text": FeatureRecipe(EncoderIdentity(TEXT)),
    }
    for name, encoder in (("gene", GENE), ("image", IMAGE)):
        # features of another width are those of another encoder, which only the caller knows
        if layout.dims[name] != get_spec(encoder, name).dim:
            recipes[name] = FeatureRecipe(None, f"X_{name}_features")
    modalities = {
        name: ModalityConfig(
            recipe,
            layout.dims[name],
            HeadConfig("bn_shortcut", layout.dims[name]),
            trained=name == "text" and bool(layout.text),
        )
        for name, recipe in recipes.items()
    }
    return ModelConfig(layout.projection_dim, modalities, card=_card(source))


def _identity(encoder: str, modality: str) -> EncoderIdentity:
    return encoder_class(encoder, modality).identify(encoder) or EncoderIdentity(encoder)


def _card(source: Source) -> Card:
    return Card(
        name=source.name,
        tissue="human tissue of many organs (HEST-1K; human samples of CELLxGENE and ARCHS4)",
        use="zero-shot annotation of H&E images in words, for research; not for diagnosis, and not for commercial use",
        data=TRAINED_ON,
        sections_with_image=(),
        sections_with_text=(),
        patients=(),
        recipe={
            "paper": "Schaefer et al., Transitive Representation Learning Enhances Histopathology Annotation, ICML 2026",
            "checkpoint_sha256": source.sha256,
            "image_tiles": f"{TILE_UM:g} um in {TILE_PX} px (0.5 um per pixel)",
        },
        random_state=0,
        held_out_macro_auroc={},
        versions={},
        command=f"sw.models.load({source.name!r})",
        licence=f"weights {LICENCE} (non-commercial); image encoder {IMAGE} CC-BY-NC-ND-4.0, gated",
    )


def extract_image_tower(source: Source, file: TorchFile, layout: Layout, folder: Path) -> None:
    """Write the image tower of a full checkpoint beside its converted folder, as safetensors; a stripped one has none.

    It is frozen and not part of the model, which takes it by its name. Whoever has the full checkpoint need not download it again.
    """
    if not layout.image_tower or folder.is_dir():
        return
    from safetensors.numpy import save_file

    temporary = beside(folder)
    try:
        arrays = {name: file.array(tensor) for name, tensor in layout.image_tower.items()}
        save_file(arrays, temporary / "model.safetensors")
        as_usual(temporary, [temporary, temporary / "model.safetensors"])
        make_durable(temporary)
        put(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sweep(folder)
    inform(
        f"{source.name} holds the image tower too; it was written to {folder}. To use it: encoders={{'image': "
        f"sw.models.image_encoder({IMAGE!r}, weights={str(folder)!r})}}."
    )
