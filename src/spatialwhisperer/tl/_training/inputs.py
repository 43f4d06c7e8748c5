"""The inputs of training, stacked over all objects, from which a model is built and batches are made."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._access.tiles.lazy import LazyTiles
from spatialwhisperer._frozen import frozen
from spatialwhisperer._random import isolated_rng
from spatialwhisperer.models.config import ContextConfig
from spatialwhisperer.pp.text_features import TextFeatures
from spatialwhisperer.retrieval.neighbours import section_neighbours
from spatialwhisperer.statistics.standardize import standardize, statistics
from spatialwhisperer.tl._training.readers import Request, read_modality
from spatialwhisperer.tl._training.sources import item_arrays, observations, stack
from spatialwhisperer.training.batches import Items
from spatialwhisperer.training.text.wordings import place_wordings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from spatialwhisperer._access.result import Result
    from spatialwhisperer._access.slide import Slide
    from spatialwhisperer.encoders.base import Encoder
    from spatialwhisperer.encoders.recipe import FeatureRecipe
    from spatialwhisperer.models.parts import Context, Preset
    from spatialwhisperer.tl._training.readers import Read
    from spatialwhisperer.tl._training.sources import Source
    from spatialwhisperer.training.text.wordings import Wordings


@dataclass(frozen=True)
class ModalityInputs:
    """One modality.

    Attributes
    ----------
    raw
        Inputs before they are standardised, stacked over the objects.
    recipe
        How its features are made.
    dim
        Number of features.
    standardize
        How they are standardised.
    statistics
        Mean and standard deviation of the training features; ``None`` for text and for an encoder that is trained.
    encoder
        The encoder, where the model must store it.
    unlocked
        Letter of an encoder that is trained ("U" or "u"), else ``None``.
    context
        Context module, where there is one.
    """

    raw: Any
    recipe: FeatureRecipe
    dim: int
    standardize: str
    statistics: tuple[np.ndarray, np.ndarray] | None = None
    encoder: Encoder | None = None
    unlocked: str | None = None
    context: ContextConfig | None = None


@dataclass(frozen=True)
class Inputs:
    """Everything a model is built from and fitted to.

    Attributes
    ----------
    items
        Training items.
    modalities
        Inputs of each modality.
    captions
        Distinct captions in order of first appearance.
    observations
        Every row of every object; see :func:`~spatialwhisperer.tl._training.sources.observations`.
    computed
        Features that were computed, with the object that they are to be stored in.
    wordings
        Caption to other texts that say the same.
    """

    items: Items
    modalities: Mapping[str, ModalityInputs]
    captions: Sequence[str]
    observations: pd.DataFrame
    computed: Sequence[tuple[Slide, Result]] = field(default_factory=tuple)
    wordings: Mapping[str, Sequence[str]] = field(default_factory=frozen)

    @property
    def unlocked(self) -> dict[str, str]:
        """Letters of the encoders that are trained."""
        return {m: one.unlocked for m, one in self.modalities.items() if one.unlocked is not None}

    def rows_of(self, modality: str, rows: pd.DataFrame) -> Any:
        """Raw inputs of a modality at some observations."""
        return self.raw_at(modality, rows[modality].to_numpy())

    def raw_at(self, modality: str, at: np.ndarray) -> Any:
        """Raw inputs of a modality at some positions. Tiles are read later, when they are used."""
        x = self.modalities[modality].raw
        if isinstance(x, LazyTiles):
            return x.picked(at)
        return [x[i] for i in at] if isinstance(x, list) else x[at]


def prepare_inputs(
    sources: Sequence[Source],
    preset: Preset,
    requests: Mapping[str, Request],
    *,
    held_out: set[str],
    random_state: int,
) -> Inputs:
    """Compute the features of frozen encoders, and set up the encoders that are trained. Only a gene encoder is fitted here.

    Parameters
    ----------
    sources
        The objects.
    preset
        What is trained.
    requests
        Options of the features of each modality.
    held_out
        Held-out groups; a gene encoder and the training statistics are fitted without them.
    random_state
        Seed.
    """
    captions = list(dict.fromkeys(c for s in sources for c in s.captions.ravel() if c is not None))
    texts, wordings = _texts(captions, requests.get("text"))
    read: dict[str, Read] = {}
    with isolated_rng(random_state):
        for modality, request in requests.items():
            read[modality] = read_modality(
                modality,
                sources,
                request,
                letter=preset.letter(modality),
                captions=texts,
                held_out=held_out,
                random_state=random_state,
            )
    rows = observations(sources, {m: one.masks for m, one in read.items() if m != "text"})
    arrays = item_arrays(sources, rows)
    stacked, modalities = {}, {}
    for modality, one in read.items():
        stacked[modality], modalities[modality] = _finished(modality, one, preset, sources, held_out)
    index = {m: _caption_index(captions, arrays["caption"]) if m == "text" else arrays[m] for m in read}
    seen = {m: _context(modalities[m], m, preset.context, rows) for m in preset.context.modalities if m in read}
    for modality in seen:
        modalities[modality] = _with_context(modalities[modality], preset.context)
    places = rows["section"].to_numpy(), rows[["x", "y"]].to_numpy()
    items = Items(stacked, index, arrays["row"], arrays["group"], seen, places=places, wordings=wordings)
    computed = [pair for one in read.values() for pair in one.computed]
    said = request.wordings if isinstance(request := requests.get("text"), TextFeatures) else frozen()
    return Inputs(items, modalities, captions if "text" in read else [], rows, computed, said)


def _finished(
    modality: str, read: Read, preset: Preset, sources: Sequence[Source], held_out: set[str]
) -> tuple[Any, ModalityInputs]:
    """Inputs of a modality as batches take them, and its description."""
    x = stack(read.parts)
    letter = preset.letter(modality)
    if read.trained:
        return x, ModalityInputs(x, read.recipe, read.dim, "none", None, read.encoder, letter)
    how = preset.standardize.get(modality, "none")
    if how == "auto":
        how = "global" if read.looks_at_image else "section"
    if modality == "text":
        return x, ModalityInputs(x, read.recipe, read.dim, how, None, read.encoder)
    rows = [(s, m) for s, m in zip(sources, read.masks, strict=True) if m is not None]
    sections = np.concatenate([s.section[m] for s, m in rows])
    training = ~np.concatenate([s.of_groups(held_out)[m] for s, m in rows])
    mean, std = statistics(x[training])
    standardized = standardize(x, how=how, mean=mean, std=std, sections=sections)
    return standardized, ModalityInputs(x, read.recipe, read.dim, how, (mean, std), read.encoder)


def _texts(captions: Sequence[str], request: Request) -> tuple[list[str], Wordings | None]:
    """Captions and other texts that speak of them."""
    if not isinstance(request, TextFeatures):
        return list(captions), None
    return place_wordings(captions, request.wordings, request.negated)


def _caption_index(distinct: Sequence[str], captions: np.ndarray) -> np.ndarray:
    position = {caption: i for i, caption in enumerate(distinct)}
    return np.array([position.get(caption, -1) for caption in captions], dtype=np.int64)


def _with_context(inputs: ModalityInputs, context: Context) -> ModalityInputs:
    return replace(inputs, context=ContextConfig(context.kind, context.options, context.chunk))


def _context(inputs: ModalityInputs, modality: str, context: Context, rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """What the context module of a modality reads in addition to the features, for each stacked row."""
    if inputs.unlocked is not None:
        raise ValueError(
            f"The {modality} part of this preset uses neighbours ({context.kind}), which needs frozen features. Lock the {modality} "
            "encoder, or take a preset without context there."
        )
    rows = rows[rows[modality] >= 0].sort_values(modality)
    xy = rows[["x", "y"]].to_numpy()
    if not np.isfinite(xy).all():
        raise ValueError(
            f"The {modality} part of this preset uses neighbours ({context.kind}), and rows have no position. Give "
            ".obsm['spatial'], or .obs['array_row'] and .obs['array_col']."
        )
    if context.array_positions:
        _check_table(xy, context)
        return {"positions": xy.astype(np.int64)}
    near = section_neighbours(xy, rows["section"].to_numpy(), context.options["n_neighbours"])
    return {"neighbours": near.index, "offsets": near.offsets}


def _check_table(xy: np.ndarray, context: Context) -> None:
    """Refuse positions that the table of the context has no row for, since they would add nothing."""
    from spatialwhisperer.networks.context import TABLE_SIZE

    size = context.options.get("table_size", TABLE_SIZE)
    if xy.min(initial=0) < 0 or xy.max(initial=0) >= size:
        raise ValueError(
            f"Positions on the array lie between {xy.min():g} and {xy.max():g}, and the preset has vectors for 0 to {size - 1}. Give rows "
            "and columns of spots in .obs['array_row'] and .obs['array_col'], or a larger table: preset.replace(context="
            "sw.models.Context('batch_peer', ('gene',), {'table_size': …}, chunk=32))."
        )
