"""The inputs of training, stacked over all objects, from which a model is built and batches are made."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._access.tiles.lazy import LazyTiles
from spatialwhisperer._checks.texts import plain_text
from spatialwhisperer._frozen import frozen
from spatialwhisperer._messages import inform, listing
from spatialwhisperer._random import isolated_rng
from spatialwhisperer.encoders.outputs import encoded
from spatialwhisperer.models.configuration.model import ContextConfig
from spatialwhisperer.pp.features.options import TextFeatures
from spatialwhisperer.retrieval.neighbours import section_neighbours
from spatialwhisperer.statistics.standardize import standardize, statistics
from spatialwhisperer.tl._training.readers import Request, caption_encoder, read_modality
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
    from spatialwhisperer.models.configuration.parts import Context, Preset
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
    whole_sections
        Mean and standard deviation of the raw features of each whole section, both (d,), where `raw` holds some of its rows; else
        ``None``.
    """

    raw: Any
    recipe: FeatureRecipe
    dim: int
    standardize: str
    statistics: tuple[np.ndarray, np.ndarray] | None = None
    encoder: Encoder | None = None
    unlocked: str | None = None
    context: ContextConfig | None = None
    whole_sections: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None


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
    read: dict[str, Read] = {}
    with isolated_rng(random_state):
        sources, requests, captions = _spelt_alike(sources, requests, preset)
    texts, wordings = _texts(captions, requests.get("text"))
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
    seen = {m: _context(modalities[m], m, preset, rows, sources) for m in preset.context.modalities if m in read}
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


def _spelt_alike(
    sources: Sequence[Source], requests: Mapping[str, Request], preset: Preset
) -> tuple[Sequence[Source], Mapping[str, Request], list[str]]:
    """Objects and options with one spelling of each caption, and the distinct captions in order of first appearance."""
    captions = list(dict.fromkeys(c for s in sources for c in s.captions.ravel() if c is not None))
    request = requests.get("text")
    if not isinstance(request, TextFeatures):
        return sources, requests, captions
    one = same_captions(captions, request, pretrained=preset.letter("text") != "u")
    if one:
        inform(
            "Captions that differ in case alone and have the same features are one caption: "
            f"{listing((f'{other!r} is read as {first!r}' for other, first in one.items()), 4)}."
        )
        sources = [replace(s, captions=np.frompyfunc(lambda c: one.get(c, c), 1, 1)(s.captions)) for s in sources]
    wordings, negated = (_of_captions(said, one) for said in (request.wordings, request.negated))
    requests = {**requests, "text": replace(request, wordings=wordings, negated=negated)}
    return sources, requests, list(dict.fromkeys(one.get(c, c) for c in captions))


def same_captions(captions: Sequence[str], request: TextFeatures, *, pretrained: bool) -> dict[str, str]:
    """Captions that differ from an earlier one in case alone and have its features, and the earlier one of each."""
    groups: dict[str, list[str]] = {}
    for caption in captions:
        groups.setdefault(caption.casefold(), []).append(caption)
    spellings = [c for group in groups.values() if len(group) > 1 for c in group]
    if not spellings:
        return {}
    features = dict(zip(spellings, encoded(caption_encoder(request, pretrained=pretrained), spellings), strict=True))
    out: dict[str, str] = {}
    for group in groups.values():
        for n, caption in enumerate(group):
            alike = (c for c in group[:n] if c not in out and np.allclose(features[c], features[caption], atol=1e-5))
            if first := next(alike, None):
                out[caption] = first
    return out


def _of_captions(said: Mapping[str, Sequence[str]], one: Mapping[str, str]) -> dict[str, list[str]]:
    """Wordings in plain form by the spelling of their caption that is kept."""
    out: dict[str, list[str]] = {}
    for caption, texts in said.items():
        plain = plain_text(caption)
        out.setdefault(one.get(plain, plain), []).extend(map(plain_text, texts))
    return out


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


def _context(
    inputs: ModalityInputs, modality: str, preset: Preset, rows: pd.DataFrame, sources: Sequence[Source]
) -> dict[str, np.ndarray]:
    """What the context module of a modality reads in addition to the features, for each stacked row."""
    context = preset.context
    if inputs.unlocked is not None:
        raise ValueError(
            f"The {modality} part of this preset uses neighbours ({context.kind}), which needs frozen features. Lock the {modality} "
            "encoder, or take a preset without context there."
        )
    rows = rows[rows[modality] >= 0].sort_values(modality)
    xy = rows[["x", "y"]].to_numpy()
    placed = np.isfinite(xy).all(axis=1)
    # an object without a pair is read, and no batch holds its rows
    pairs = [set(pair) for pair, weight in preset.pairs.items() if weight > 0 and modality in pair]
    needed = [number for number, s in enumerate(sources) if any(pair <= s.has for pair in pairs)]
    missing = {s.name: int((~placed & (rows["source"] == i)).sum()) for i, s in enumerate(sources) if i in needed}
    if any(missing.values()):
        which = listing(f"{n} rows of {name}" for name, n in missing.items() if n)
        raise ValueError(
            f"The {modality} part of this preset uses neighbours ({context.kind}), and {which} have no position. Give "
            ".obsm['spatial'], or .obs['array_row'] and .obs['array_col'], or leave such an object out."
        )
    if context.array_positions:
        xy = np.where(placed[:, None], xy, 0)
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
