"""Features of one slide by the encoders of a corpus."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._access.columns import plain_captions
from spatialwhisperer._access.table.groups import group_names
from spatialwhisperer._access.tables import obs_of
from spatialwhisperer._messages import listing
from spatialwhisperer._provenance import recorded_as
from spatialwhisperer.encoders.catalogue import encoder_class, encoder_names, opens_by_name
from spatialwhisperer.encoders.gene.base import GeneEncoder
from spatialwhisperer.encoders.outputs import encoded
from spatialwhisperer.encoders.recipe import FeatureRecipe
from spatialwhisperer.encoders.resolve import named_gene_encoder, text_encoder
from spatialwhisperer.pp.corpus.patches import has_patches, patch_features, patch_recipe
from spatialwhisperer.pp.corpus.writing import Rows
from spatialwhisperer.pp.features.encoder_choice import choose_encoder, why_unfit
from spatialwhisperer.pp.features.images import FeatureRecord, given_features, image_features, image_recipe
from spatialwhisperer.pp.genes import gene_features
from spatialwhisperer.training.corpus.manifest import CorpusFeature

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anndata import AnnData

    from spatialwhisperer._access.slide import Slide
    from spatialwhisperer.encoders.image.base import ImageEncoder
    from spatialwhisperer.encoders.text.base import TextEncoder
    from spatialwhisperer.pp.corpus.sources import CorpusSource
    from spatialwhisperer.pp.features.encoder_choice import EncoderChoice
    from spatialwhisperer.pp.features.options import GeneFeatures, ImageFeatures, TextFeatures


@dataclass(frozen=True)
class Encoders:
    """What the features of a corpus are made by; ``None`` for a modality that it does not hold, or whose features are given.

    Attributes
    ----------
    image, gene, text
        The options.
    image_choice
        Image encoder, which is opened when it is needed.
    load_image
        Opens the image encoder, once.
    gene_encoder, text_encoder
        Gene encoder and text encoder.
    batch_size, device
        Tiles or rows in one pass, and torch device.
    """

    image: ImageFeatures | None
    gene: GeneFeatures | None
    text: TextFeatures | None
    image_choice: EncoderChoice | None
    load_image: Callable[[], ImageEncoder] | None
    gene_encoder: GeneEncoder | None
    text_encoder: TextEncoder | None
    batch_size: int | None = None
    device: str | None = None

    @classmethod
    def of(
        cls,
        image: ImageFeatures | None,
        gene: GeneFeatures | None,
        text: TextFeatures | None,
        batch_size: int | None,
        device: str | None,
    ) -> Encoders:
        """Find the encoders that the options name.

        Raises
        ------
        ValueError
            If a gene encoder is named that would have to be fitted.
        """
        choice = None
        if image is not None and image.key is None:
            choice = choose_encoder(image.encoder or "stain_texture", weights=image.weights)
        genes = None if gene is None or gene.key is not None else _gene_encoder(gene)
        texts = None if text is None else text_encoder(text.encoder or "minilm", pooling=text.pooling)
        load = None if choice is None else cache(choice.open)
        return cls(image, gene, text, choice, load, genes, texts, batch_size, device)

    def features(self, slide: Slide) -> dict[str, CorpusFeature]:
        """How the features of a slide are made; the number of features is 0 where it is not known yet."""
        out = {}
        if self.image is not None and has_image(slide, self.image):
            out["image"] = self._image_feature(slide)
        if self.gene is not None:
            out["gene"] = self._gene_feature(slide.table)
        if self.text_encoder is not None:
            identity, spec = self.text_encoder.identity, self.text_encoder.spec
            out["text"] = CorpusFeature(FeatureRecipe(identity), spec.dim or 0, spec.licence)
        return out

    def _gene_feature(self, table: AnnData) -> CorpusFeature:
        encoder = self.gene_encoder
        if encoder is None:
            key = "" if self.gene is None else str(self.gene.key)
            return CorpusFeature(FeatureRecipe(None, key), _width(table, key))
        return CorpusFeature(
            FeatureRecipe(encoder.identity), encoder.dim, encoder.spec.licence, stored=not encoder.identity.by_name
        )

    def _image_feature(self, slide: Slide) -> CorpusFeature:
        if self.image is None or self.image_choice is None:
            key = "" if self.image is None else str(self.image.key)
            record = recorded_as(slide.table, key, FeatureRecord)
            recipe = FeatureRecipe(None, key) if record is None else record.recipe
            return CorpusFeature(recipe, _width(slide.table, key), "" if record is None else record.licence)
        choice = self.image_choice
        recipe = self._image_recipe(slide)
        by_name = choice.identity.by_name and opens_by_name(choice.identity.name, "image")
        opens: Any = encoder_class(choice.identity.name, "image") if by_name else choice.open()
        looks = bool(getattr(opens, "looks_at_image", False))
        return CorpusFeature(recipe, choice.spec.dim or 0, choice.spec.licence, looks_at_image=looks)

    def _image_recipe(self, slide: Slide) -> FeatureRecipe:
        if self.image is None or self.image_choice is None:
            raise TypeError("features that are given have no recipe of an encoder")
        if has_patches(slide.table):
            return patch_recipe(slide.table, self.image_choice)
        given = self.image
        return image_recipe(slide, self.image_choice, tile_um=given.tile_um, tile_px=given.tile_px, border=given.border)

    def rows(self, slide: Slide, source: CorpusSource, number: str) -> Rows:
        """Compute the features of a slide.

        Raises
        ------
        ValueError, KeyError
            As the functions that embed one object do.
        """
        table = slide.table
        found: dict[str, np.ndarray] = {}
        if self.image is not None and has_image(slide, self.image):
            found["image"] = self._embed_image(slide)
        if self.gene is not None and has_genes(table, self.gene):
            found["gene"] = self._embed_genes(slide)
        texts, captions = captions_of(table, source.text_keys) if self.text_encoder is not None else ([], None)
        if self.text_encoder is not None and texts:
            found["text"] = encoded(self.text_encoder, texts, batch_size=self.batch_size, device=self.device)
        return Rows(
            np.array([f"{number}:{name}" for name in table.obs_names], dtype=object),
            group_names(obs_of(table)[source.patient_key]),
            np.array([f"{number}:{code}" for code in slide.sections], dtype=object),
            found,
            np.full((table.n_obs, 1), -1) if captions is None else captions,
            texts,
        )

    def _embed_image(self, slide: Slide) -> np.ndarray:
        if self.image is not None and self.image.key is not None:
            return given_features(slide, self.image.key)
        if self.image_choice is None or self.load_image is None:
            raise TypeError("there is no image encoder")
        if has_patches(slide.table):
            return patch_features(slide.table, self.load_image())
        if self.image_choice.spec.coarsest_mpp is not None and (why := why_unfit(slide, self.image_choice.spec)):
            raise ValueError(f"{why}. Leave the slide out, or choose another encoder.")
        recipe = self._image_recipe(slide)
        load = self.load_image
        return image_features(slide, recipe, load, batch_size=self.batch_size, device=self.device).values

    def _embed_genes(self, slide: Slide) -> np.ndarray:
        if self.gene is None or self.gene_encoder is None:
            return given_features(slide, "" if self.gene is None else str(self.gene.key))
        layer = self.gene.layer
        return gene_features(
            slide.table, self.gene_encoder, layer=layer, batch_size=self.batch_size, device=self.device
        )[0]


def _gene_encoder(gene: GeneFeatures) -> GeneEncoder:
    encoder: Any = gene.encoder or "geneformer"
    if isinstance(encoder, str) and encoder in encoder_names("gene", fits=True):
        raise ValueError(
            f"gene={encoder!r} would be fitted to each slide by itself, so that no two slides could be compared. Fit it first: "
            f"encoder = sw.pp.fit_gene_encoder(some_slides, {encoder!r}), and pass gene=encoder."
        )
    if isinstance(encoder, str | Path):
        encoder = named_gene_encoder(encoder)
    if not isinstance(encoder, GeneEncoder):
        raise TypeError(f"A gene encoder must be a name, a folder or a GeneEncoder, not {type(encoder).__name__}.")
    return encoder


def _width(table: AnnData, key: str) -> int:
    """Number of features that are given; 0 where there are none."""
    return int(table.obsm[key].shape[1]) if key in table.obsm else 0


def has_image(slide: Slide, image: ImageFeatures) -> bool:
    """Whether a slide has image features, or an image to compute them from."""
    if image.key is not None:
        return image.key in slide.table.obsm
    return has_patches(slide.table) or slide.has_image()


def has_genes(table: AnnData, gene: GeneFeatures) -> bool:
    """Whether a table has gene features, or counts to compute them from."""
    return gene.key in table.obsm if gene.key is not None else table.n_vars > 0


def captions_of(table: AnnData, keys: list[str]) -> tuple[list[str], np.ndarray]:
    """Distinct captions in order of first appearance, and those of each row, -1 where there is none, shape (n, columns)."""
    columns = []
    for key in keys:
        if key not in table.obs:
            columns.append(np.full(table.n_obs, "", dtype=object))
            continue
        columns.append(np.array([text or "" for text in plain_captions(obs_of(table)[key])], dtype=object))
    stacked = np.stack(columns, axis=1) if columns else np.empty((table.n_obs, 0), dtype=object)
    texts = [text for text in dict.fromkeys(stacked.ravel().tolist()) if text]
    place = {text: i for i, text in enumerate(texts)}
    codes = np.array([[place.get(text, -1) for text in row] for row in stacked], np.int64).reshape(stacked.shape)
    for row in codes:
        # a wording that is stated twice counts once
        row[[i for i, c in enumerate(row) if c >= 0 and c in row[:i]]] = -1
    return texts, codes


def with_dims(
    features: dict[str, CorpusFeature], found: Mapping[str, np.ndarray], what: str
) -> dict[str, CorpusFeature]:
    """The number of features where it was not known.

    Raises
    ------
    ValueError
        If features of a slide have another width than those of the corpus.
    """
    out = dict(features)
    for modality, x in found.items():
        feature = out[modality]
        if feature.dim not in (0, x.shape[1]):
            raise ValueError(
                f"The {modality} features of {what} have {x.shape[1]} columns, and those of the corpus {feature.dim}."
            )
        out[modality] = replace(feature, dim=x.shape[1])
    return out


def origins(table: AnnData, keys: list[str], codes: np.ndarray) -> tuple[int, int]:
    """Number of rows with free and with templated captions; see :func:`spatialwhisperer.pp.caption_metadata`."""
    stated = (codes >= 0).any(axis=1)
    column = f"{keys[0]}_origin" if keys else ""
    templated = np.zeros(table.n_obs, bool)
    if column in table.obs:
        templated = (table.obs[column].astype(str) == "templated").to_numpy()
    return int((stated & ~templated).sum()), int((stated & templated).sum())


def check_text_keys(table: AnnData, keys: list[str], what: str) -> None:
    """Refuse captions whose columns are named and not there, where a column other than the default is named."""
    if keys != ["text"] and not any(key in table.obs for key in keys):
        raise KeyError(
            f"No column of captions {listing(keys)} in .obs of {what} (found: {listing(table.obs.columns)})."
        )
