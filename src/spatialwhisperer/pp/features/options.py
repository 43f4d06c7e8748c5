"""Which features of images, genes and texts a training asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spatialwhisperer._annotations import is_text
from spatialwhisperer._checks.checked import checked_options
from spatialwhisperer._checks.texts import plain_text
from spatialwhisperer._frozen import frozen
from spatialwhisperer._messages import listing
from spatialwhisperer.encoders.text.transformer import POOLINGS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import torch

    from spatialwhisperer.encoders.gene.base import GeneEncoder
    from spatialwhisperer.encoders.image.base import ImageEncoder
    from spatialwhisperer.encoders.recipe import Border
    from spatialwhisperer.encoders.text.base import TextEncoder
    from spatialwhisperer.encoders.text.transformer import Pooling


@checked_options
@dataclass(frozen=True)
class ImageFeatures:
    """Which image features to train on.

    Features in ``.obsm`` that were computed with the same encoder, weights, tiles and scale are used; others are computed again.

    Attributes
    ----------
    encoder
        Name of an image encoder, a torch module, or an encoder object; ``None`` takes that of the preset. A module gets tiles that are
        normalised as ImageNet; one of timm as its ``pretrained_cfg`` says, resized to the edge it was built for. Parameters of a
        module that are frozen stay so where the encoder is trained, unless all are.
    tile_um
        Edge of a tile in microns, or several edges. ``None`` takes that of the preset, else the one that
        :func:`spatialwhisperer.pp.tiles` recorded, else the one that the encoder was trained on.
    tile_px
        Edge of a tile in pixels. ``None`` takes what `tiles` recorded, else what the encoder takes.
    border
        What to do with tiles that cross the edge of the image: ``"pad"`` fills them up with white, ``"nan"`` sets their rows to NaN.
    weights
        File or folder with the weights of the encoder.
    pretrained
        Start from the published weights, where the encoder itself is trained.
    key
        Key in ``.obsm`` of features to use as they are, instead of an encoder.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sw.tl.ImageFeatures("resnet18", tile_um=(112, 224)).tile_um
    (112, 224)
    """

    encoder: str | torch.nn.Module | ImageEncoder | None = None
    tile_um: float | Sequence[float] | None = None
    tile_px: int | None = None
    border: Border = "pad"
    weights: str | Path | None = None
    pretrained: bool = True
    key: str | None = None


@checked_options
@dataclass(frozen=True)
class GeneFeatures:
    """Which gene features to train on.

    Attributes
    ----------
    encoder
        ``"pca"``, ``"scvi"``, ``"scanvi"``, ``"drvi"``, ``"set_transformer"`` or ``"gene_sentence"``, fitted on the raw counts of the
        training groups; ``"auto"``, scVI from 1,000 rows on and PCA below; ``"identity"``, the expression of the genes that are
        predicted; ``"geneformer"``, which is not fitted; or a fitted encoder or its folder. ``None`` takes that of the preset.
    layer
        Layer with raw counts; ``None`` takes ``.X``.
    batch_key, labels_key
        Columns of ``.obs`` with batch and labels, for an encoder that is fitted.
    options
        More arguments of :func:`spatialwhisperer.pp.fit_gene_encoder`, such as ``{"n_latent": 10}``.
    key
        Key in ``.obsm`` of features to use as they are, instead of an encoder.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sw.tl.GeneFeatures("pca", options={"n_latent": 10}).encoder
    'pca'
    """

    encoder: str | Path | GeneEncoder | None = None
    layer: str | None = None
    batch_key: str | None = None
    labels_key: str | None = None
    options: Mapping[str, Any] = field(default_factory=frozen)
    key: str | None = None


@checked_options
@dataclass(frozen=True)
class TextFeatures:
    """Which captions to train on, and what else they are called.

    A model that knows a class by one caption answers other names of it badly. Wordings cost no rows: a caption has one direction in the
    joint space, however many texts lead to it.

    Attributes
    ----------
    encoder
        ``"minilm"``, another registered name, a Hugging Face id, a local folder, or an encoder object; ``None`` takes that of the
        preset.
    key
        Column of ``.obs`` with captions, or several columns that each give a caption to a row. Blanks and Unicode forms do not tell
        captions apart, nor does case where the encoder gives the same features. An empty text, "nan", "NA", "n/a", "None" and
        "<NA>" are no caption.
    wordings
        Caption to other texts that say the same, in an order in which texts that are alike stand together. A text may be true of
        several captions. In closed form all texts are fitted, and the strength of the ridge penalty is the one at which fifths of the
        list that are left out are answered best; otherwise an item has another wording of its caption in every epoch.
    negated
        Caption to texts that say that it is not true of a row, such as "no tumour cells". They are true of the rows without the
        caption. Only a model in closed form learns them.
    pooling
        How the tokens of a transformer become one vector: "mean", "cls" (the first token) or "pooler" (BERT's own output). ``None``
        takes that of the registered name, else what a folder of sentence-transformers states, else the mean.

    Raises
    ------
    TypeError, ValueError
        If wordings are not lists of texts, a text is empty, or the pooling is unknown.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sw.tl.TextFeatures(key=["text", "text_long"]).key
    ['text', 'text_long']
    >>> text = sw.tl.TextFeatures(
    ...     wordings={"breast carcinoma": ["tumour", "neoplasm"]}, negated={"breast carcinoma": ["no tumour"]}
    ... )
    >>> text.negated["breast carcinoma"]
    ['no tumour']
    """

    encoder: str | Path | TextEncoder | None = None
    key: str | Sequence[str] = "text"
    wordings: Mapping[str, Sequence[str]] = field(default_factory=frozen)
    negated: Mapping[str, Sequence[str]] = field(default_factory=frozen)
    pooling: Pooling | None = None

    def __post_init__(self) -> None:
        if self.pooling not in (None, *POOLINGS):
            raise ValueError(f"pooling must be one of {listing(map(repr, POOLINGS))}, not {self.pooling!r}.")
        for name in ("wordings", "negated"):
            for caption, texts in getattr(self, name).items():
                if isinstance(texts, str) or not all(map(is_text, texts)):
                    raise TypeError(f"{name}[{caption!r}] must be a list of texts, not {texts!r}.")
                if not all(map(plain_text, texts)):
                    raise ValueError(
                        f"{name}[{caption!r}] holds an empty text (found: {listing(map(repr, texts), 4)})."
                    )
