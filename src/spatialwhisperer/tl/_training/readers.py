"""Reading one modality of all objects: features of a frozen encoder, or raw inputs where the encoder is trained."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer import _keys
from spatialwhisperer._access.contract import feature_matrix
from spatialwhisperer._access.table.counts import counts_for
from spatialwhisperer._messages import inform, listing
from spatialwhisperer._modalities import get_modality
from spatialwhisperer._provenance import recorded_as
from spatialwhisperer.encoders.catalogue import encoder_class, encoder_names, open_encoder, opens_by_name
from spatialwhisperer.encoders.gene.base import GeneEncoder
from spatialwhisperer.encoders.outputs import encoded
from spatialwhisperer.encoders.recipe import FeatureRecipe
from spatialwhisperer.encoders.resolve import image_encoder, named_gene_encoder, text_encoder
from spatialwhisperer.encoders.text.base import TextEncoder
from spatialwhisperer.encoders.text.kept_features import encoded_or_kept
from spatialwhisperer.pp.features.encoder_choice import choose_encoder, fine_enough
from spatialwhisperer.pp.features.images import (
    FeatureRecord,
    image_features,
    image_recipe,
    lazy_tiles,
)
from spatialwhisperer.pp.features.options import GeneFeatures, ImageFeatures, TextFeatures
from spatialwhisperer.pp.features.tile_sizes import has_own_sizes
from spatialwhisperer.pp.genes import fit_gene_encoder, gene_features

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from spatialwhisperer._access.result import Result
    from spatialwhisperer._access.slide import Slide
    from spatialwhisperer.encoders.base import Encoder
    from spatialwhisperer.tl._training.sources import Source

FEWEST_ROWS = 1000
"""Rows with counts from which on the default gene encoder is scVI."""

SEEN_ROWS, FEWEST_MOST_EPOCHS = 400_000, (5, 100)
"""The default scVI sees each row in so many epochs that this many rows are seen, within limits."""

Request = ImageFeatures | GeneFeatures | TextFeatures | None
"""Options of the features of a modality; ``None`` for a modality that reads a matrix, which has no options."""


@dataclass(frozen=True)
class Read:
    """Inputs of one modality.

    Attributes
    ----------
    parts
        Inputs of each object that has any, without incomplete rows; for text the captions of all objects.
    masks
        Which rows of each object have an input; ``None`` for an object that has none.
    dim
        Number of features.
    recipe
        How the features are made.
    encoder
        The encoder.
    trained
        Whether the encoder is trained, so that ``parts`` are raw inputs.
    computed
        Features that were computed, with the object that they are to be stored in.
    """

    parts: Sequence[Any]
    masks: Sequence[np.ndarray | None]
    dim: int
    recipe: FeatureRecipe
    encoder: Encoder | None = None
    trained: bool = False
    computed: Sequence[tuple[Slide, Result]] = field(default_factory=tuple)

    @property
    def looks_at_image(self) -> bool:
        """Whether these are image features that take the staining of the whole image into account."""
        named, encoder = self.recipe.encoder, self.encoder
        if encoder is None and named is not None and named.by_name and self.recipe.tile_um:
            return bool(getattr(encoder_class(named.name, "image"), "looks_at_image", False))
        return bool(getattr(encoder, "looks_at_image", False))


@dataclass(frozen=True)
class _Task:
    """Arguments of a reader."""

    modality: str
    sources: Sequence[Source]
    request: Any
    letter: str
    captions: list[str]
    held_out: set[str]
    random_state: int


def read_modality(
    modality: str,
    sources: Sequence[Source],
    request: Request,
    *,
    letter: str,
    captions: list[str],
    held_out: set[str],
    random_state: int,
) -> Read:
    """Read a modality of all objects: features of a frozen encoder, or raw inputs where the encoder is trained.

    Parameters
    ----------
    modality
        Its name.
    sources
        The objects.
    request
        Options of its features.
    letter
        "L": features of a frozen encoder; "U" or "u": raw inputs of an encoder that is trained.
    captions
        Distinct captions of all objects, and other texts that speak of them.
    held_out
        Held-out groups; a gene encoder is fitted without them.
    random_state
        Seed.

    Raises
    ------
    KeyError
        If features that are named are not there.
    ValueError
        If no object has complete features, or an encoder cannot be trained.
    """
    read = _READERS[get_modality(modality).reads]
    return read(_Task(modality, sources, request, letter, captions, held_out, random_state))


# ------------------------------------------------------------------------------------------------- tiles


def _read_tiles(task: _Task) -> Read:
    request: ImageFeatures = task.request
    if request.key is not None:
        return _given(task, request.key)
    # `checks.requests` has put that of the preset in the place of None
    encoder: Any = request.encoder
    choice = choose_encoder(encoder, weights=request.weights, pretrained=request.pretrained and task.letter != "u")
    holders = [s for s in task.sources if task.modality in s.has]
    choice = fine_enough(choice, [s.slide for s in holders])
    # those of the preset do not apply to an encoder that has its own; `checks.requests` has refused those of the caller
    tile_um = None if has_own_sizes(choice.spec) else request.tile_um
    recipes = {
        s.name: image_recipe(s.slide, choice, tile_um=tile_um, tile_px=request.tile_px, border=request.border)
        for s in holders
    }
    recipe = _one_recipe(recipes)
    load = cache(choice.open)
    if task.letter != "L":
        return _raw_tiles(task, load(), recipe)
    features = {s.name: image_features(s.slide, recipe, load) for s in holders}
    parts, masks = _complete(
        [features[s.name].values if s.name in features else None for s in task.sources], task.modality, recipe.name
    )
    computed = [(s.slide, result) for s in holders for result in features[s.name].results]
    by_name = choice.identity.by_name and opens_by_name(choice.identity.name, task.modality)
    kept = None if by_name else load()
    return Read(parts, masks, parts[0].shape[1], recipe, kept, computed=computed)


def _raw_tiles(task: _Task, encoder: Encoder, recipe: FeatureRecipe) -> Read:
    if len(recipe.tile_um) > 1:
        raise ValueError(
            f"An image encoder that is trained takes tiles of one size, not of {listing(recipe.tile_um)} µm. Pass one tile_um."
        )
    parts: list[Any] = []
    masks: list[np.ndarray | None] = []
    for source in task.sources:
        if task.modality not in source.has:
            masks.append(None)
            continue
        tiles, off = lazy_tiles(source.slide, recipe)
        parts.append(tiles)
        masks.append(~off)
    return Read(parts, masks, module_dim(encoder, parts[0][:1]), recipe, encoder, trained=True)


def _one_recipe(recipes: Mapping[str, FeatureRecipe]) -> FeatureRecipe:
    """The recipe of all objects; it is refused where `tiles` stated different sizes in the objects."""
    distinct = list(dict.fromkeys(recipes.values()))
    if len(distinct) > 1:
        sizes = "; ".join(f"{name}: {listing(r.tile_um)} µm, {r.tile_px} px" for name, r in recipes.items())
        raise ValueError(
            f"sw.pp.tiles stated different tile sizes in the objects ({sizes}). Pass image=sw.tl.ImageFeatures(tile_um=…), or state "
            "one size."
        )
    return distinct[0]


def module_dim(encoder: Encoder, inputs: Any) -> int:
    """Number of features of an encoder that is trained, as it states it or as it gives for one input."""
    if encoder.spec.dim is not None:
        return encoder.spec.dim
    import torch

    module = encoder.module().eval()
    with torch.no_grad():
        out = module(encoder.collate(inputs))
    if out.ndim != 2:
        raise ValueError(f"An encoder must return a matrix (n, d); {encoder.spec.name!r} returned {tuple(out.shape)}.")
    return int(out.shape[1])


# ------------------------------------------------------------------------------------------------- counts


def _read_counts(task: _Task) -> Read:
    request: GeneFeatures = task.request
    if request.key is not None:
        return _given(task, request.key)
    holders = [s for s in task.sources if task.modality in s.has]
    task = _with_default_gene_encoder(task, holders)
    request = task.request
    encoder = request.encoder
    if isinstance(encoder, str) and encoder in encoder_names(task.modality, fits=True):
        encoder = _fit_gene_encoder(task, encoder, holders)
    elif isinstance(encoder, str | Path):
        encoder = named_gene_encoder(encoder)
    if not isinstance(encoder, GeneEncoder):
        raise TypeError(f"A gene encoder must be a name, a folder or a GeneEncoder, not {type(encoder).__name__}.")
    recipe = FeatureRecipe(encoder.identity)
    if task.letter == "L":
        embedded = [
            gene_features(s.table, encoder, layer=request.layer)[0] if task.modality in s.has else None
            for s in task.sources
        ]
        parts, masks = _complete(embedded, task.modality, encoder.name)
        return Read(parts, masks, encoder.dim, recipe, encoder)
    encoder.module()  # raises for an encoder without weights
    fewest = encoder.fewest_genes
    parts = [counts_for(encoder.genes, encoder.gene_ids, s.table, request.layer, fewest=fewest) for s in holders]
    masks = [np.ones(s.table.n_obs, bool) if task.modality in s.has else None for s in task.sources]
    return Read(parts, masks, encoder.dim, recipe, encoder, trained=True)


def _with_default_gene_encoder(task: _Task, holders: Sequence[Source]) -> _Task:
    """The encoder in the place of "auto": scVI where there are enough rows for a network, else PCA."""
    request: GeneFeatures = task.request
    if request.encoder != "auto":
        return task
    n_rows = sum(int((~s.of_groups(task.held_out)).sum()) for s in holders)
    if n_rows < FEWEST_ROWS:
        inform(f"Genes: PCA, because {n_rows} rows are too few for scVI ({FEWEST_ROWS}).")
        return replace(task, request=replace(request, encoder="pca"))
    epochs = int(np.clip(SEEN_ROWS // n_rows, *FEWEST_MOST_EPOCHS))
    options = {"max_epochs": epochs, **request.options}
    inform(f"Genes: fitting scVI, {options['max_epochs']} epochs over {n_rows} rows. gene='pca' is much faster.")
    return replace(task, request=replace(request, encoder="scvi", options=options))


def _fit_gene_encoder(task: _Task, name: str, holders: Sequence[Source]) -> GeneEncoder:
    """Fit on the rows of training groups, so that neither the chosen genes nor the encoder depend on held-out patients."""
    request: GeneFeatures = task.request
    tables = []
    for source in holders:
        keep = ~source.of_groups(task.held_out)
        if keep.any():
            tables.append(source.table if keep.all() else source.table[keep])
    arguments = signature(fit_gene_encoder).parameters
    own: dict[str, Any] = {k: v for k, v in request.options.items() if k in arguments}
    return fit_gene_encoder(
        tables,
        name,
        layer=request.layer,
        batch_key=request.batch_key,
        labels_key=request.labels_key,
        random_state=task.random_state,
        options={k: v for k, v in request.options.items() if k not in arguments},
        **own,
    )


# ------------------------------------------------------------------------------------------------- text, matrices


def _read_captions(task: _Task) -> Read:
    request: TextFeatures = task.request
    encoder = caption_encoder(request, pretrained=task.letter != "u")
    identity = encoder.identity
    recipe = FeatureRecipe(identity)
    if task.letter != "L":
        dim = module_dim(encoder, task.captions[:1])
        return Read([task.captions], [None], dim, recipe, encoder, trained=True)
    given = isinstance(request.encoder, TextEncoder)
    # what a caller did to an encoder since it was opened does not show in its name
    features = encoded(encoder, task.captions) if given else encoded_or_kept(encoder, task.captions)
    kept = None if identity.by_name else encoder
    return Read([features], [None], features.shape[1], recipe, kept)


def caption_encoder(request: TextFeatures, *, pretrained: bool) -> TextEncoder:
    """The encoder of captions; without ``pretrained`` a named one has random weights."""
    encoder = request.encoder or "minilm"
    return text_encoder(encoder, pooling=request.pooling, pretrained=pretrained or isinstance(encoder, TextEncoder))


def _read_matrix(task: _Task) -> Read:
    modality = get_modality(task.modality)
    if modality.encoder is None:
        return _given(task, str(modality.key))
    encoder = open_encoder(modality.encoder, modality.name)
    identity = encoder.identity
    recipe = FeatureRecipe(identity)
    matrices = [s.table.obsm.get(str(modality.key)) for s in task.sources]
    parts, masks = _complete(matrices, modality.name, f".obsm[{modality.key!r}]")
    if task.letter != "L":
        return Read(parts, masks, module_dim(encoder, parts[0][:1]), recipe, encoder, trained=True)
    parts = [encoded(encoder, part) for part in parts]
    return Read(parts, masks, parts[0].shape[1], recipe, None if identity.by_name else encoder)


def _given(task: _Task, key: str) -> Read:
    """Features in ``.obsm`` of any origin."""
    if task.letter != "L":
        raise ValueError(
            f"The features under {key!r} are fixed, and the locking code asks to train the {task.modality} encoder. Give the one or "
            "the other."
        )
    if not any(key in s.table.obsm for s in task.sources):
        there = {k for s in task.sources for k in s.table.obsm}
        raise KeyError(f"{key!r} is not in .obsm of any object (found: {listing(there)}).")
    parts, masks = _complete([s.table.obsm.get(key) for s in task.sources], task.modality, f".obsm[{key!r}]")
    return Read(parts, masks, parts[0].shape[1], _given_recipe(task.sources, key))


def _given_recipe(sources: Sequence[Source], key: str) -> FeatureRecipe:
    """The recorded recipe of the features under a key, where all objects have one; different recipes are refused."""
    holders = [s for s in sources if key in s.table.obsm]
    records = {s.name: recorded_as(s.table, key, FeatureRecord) for s in holders}
    stated = {name: record.recipe for name, record in records.items() if record is not None}
    if len(set(stated.values())) > 1:
        sizes = "; ".join(f"{name}: {r.name}, {listing(r.tile_um)} µm, {r.tile_px} px" for name, r in stated.items())
        raise ValueError(
            f".obsm[{key!r}] was computed at different tile sizes or by different encoders ({sizes}). Compute it alike: "
            "sw.pp.embed_images(data, tile_um=…, tile_px=…) for every object."
        )
    # without a record in some object the features cannot be computed again
    return next(iter(stated.values())) if len(stated) == len(holders) else FeatureRecipe(None, key)


def _complete(features: Sequence[Any], modality: str, origin: str) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
    """Features of each object without rows with NaN, and which rows are left."""
    given = [None if x is None else feature_matrix(x, origin) for x in features]
    widths = {x.shape[1] for x in given if x is not None}
    if len(widths) > 1:
        raise ValueError(f"{origin} has different widths in the objects: {listing(sorted(widths))}.")
    masks = [None if x is None else np.isfinite(x).all(axis=1) for x in given]
    parts = [x[m] for x, m in zip(given, masks, strict=True) if x is not None and m is not None]
    if not sum(len(p) for p in parts):
        raise ValueError(f"No object has complete {modality} features in {origin}.")
    return parts, masks


_READERS: dict[str, Callable[[_Task], Read]] = {
    "tiles": _read_tiles,
    "counts": _read_counts,
    "captions": _read_captions,
    "matrix": _read_matrix,
}


def key_of(request: Request, modality: str) -> str | None:
    """Key of ``.obsm`` under which features of a modality may lie."""
    if isinstance(request, ImageFeatures):
        if request.key is not None:
            return request.key
        named = isinstance(request.encoder, str)
        return _keys.features(request.encoder if named else image_encoder(request.encoder).spec.name)  # type: ignore[arg-type]
    if isinstance(request, GeneFeatures):
        return request.key
    return get_modality(modality).key
