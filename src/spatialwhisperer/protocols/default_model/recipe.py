"""How the embedded model is trained, and on what."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import spatialwhisperer as sw
from spatialwhisperer._messages import inform
from spatialwhisperer.protocols import captions
from spatialwhisperer.protocols.annotation.splits import COARSE, SEVERAL_UM, WITH_IMAGE
from spatialwhisperer.protocols.wordings.generate import make_wordings, text_options

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.models import GeneEncoder, Whisperer
    from spatialwhisperer.protocols.wordings.generate import Wording

CELLS = "wu2021_breast_CID4465.h5ad"
SCVI_EPOCHS = 40


@dataclass(frozen=True)
class TrainingRecipe:
    """What :func:`spatialwhisperer.tl.train` is called with.

    Attributes
    ----------
    preset, schedule
        What is trained.
    gene_encoder
        "scvi" or "pca".
    text_key
        Columns of ``.obs`` with captions.
    wordings
        Whether captions are trained in other words too.
    batch_key
        Column of ``.obs`` with the batch, for the gene encoder.
    tile_um, tile_px
        Edges of the tiles in microns and pixels: they are read at 2.1 and 3.2 µm per pixel, near the coarsest of the sections.
    expression
        Whether the model learns to predict expression.
    """

    preset: str = "whisperer"
    schedule: str = "sequential"
    gene_encoder: str = "scvi"
    text_key: tuple[str, ...] = captions.SEVERAL_COLUMNS
    wordings: bool = True
    batch_key: str = "patient"
    tile_um: tuple[float, ...] = SEVERAL_UM
    tile_px: int = COARSE
    expression: bool = False

    def plain(self) -> dict[str, Any]:
        """As it stands in the card of the model."""
        return asdict(self)


@dataclass
class TrainingData:
    """Sections with an image, tables of those without one, and single cells, the last two with captions; and other words for these."""

    images: dict[str, SpatialData]
    texts: dict[str, AnnData]
    cells: AnnData
    words: list[Wording] = field(default_factory=list)

    @property
    def patients(self) -> list[str]:
        """Patients with an image."""
        return sorted({name[0] for name in self.images})

    def fit(self, recipe: TrainingRecipe, seed: int, *, without: str | None = None) -> Whisperer:
        """Train on all patients, or on all but one."""
        images = [s for n, s in self.images.items() if n[0] != without]
        texts = [t for n, t in self.texts.items() if n[0] != without]
        with tempfile.TemporaryDirectory() as folder:
            return sw.tl.train(
                [*images, *texts, self.cells],
                preset=sw.models.get_preset(recipe.preset).replace(schedule=recipe.schedule),
                image=sw.tl.ImageFeatures(tile_um=recipe.tile_um, tile_px=recipe.tile_px),
                gene=sw.tl.GeneFeatures(gene_encoder(recipe, [*texts, self.cells], seed), batch_key=recipe.batch_key),
                text=text_features(recipe, [*texts, self.cells], self.words),
                expression=recipe.expression,
                random_state=seed,
                folder=folder,
            )


def text_features(recipe: TrainingRecipe, captioned: Sequence[AnnData], words: Sequence[Wording]) -> sw.tl.TextFeatures:
    """Captions, and other words for those that rows have."""
    if not (recipe.wordings and words):
        return sw.tl.TextFeatures(key=recipe.text_key)
    stated = {
        c
        for t in captioned
        for k in recipe.text_key
        if k in t.obs
        for c in set(t.obs[k].astype(object))
        if isinstance(c, str)
    }
    return sw.tl.TextFeatures(key=recipe.text_key, **text_options(words, stated))


def gene_encoder(recipe: TrainingRecipe, captioned: Sequence[AnnData], seed: int) -> str | GeneEncoder:
    """The encoder of the recipe; scVI is fitted on the rows with captions."""
    if recipe.gene_encoder != "scvi":
        return recipe.gene_encoder
    inform(f"scVI, {SCVI_EPOCHS} epochs")
    return sw.pp.fit_gene_encoder(
        captioned, "scvi", batch_key=recipe.batch_key, max_epochs=SCVI_EPOCHS, random_state=seed
    )


def load(data: Path, *, smoke: bool = False) -> TrainingData:
    """Read what the recipe needs.

    Parameters
    ----------
    data
        Folder that holds ``her2st/``, ``singlecell/`` and ``text/``.
    smoke
        Read two sections with an image, and every eighth of the others.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    """
    import anndata as ad

    path = data / "singlecell" / CELLS
    if not (data / "her2st").is_dir() or not path.is_file():
        raise FileNotFoundError(f"{data} must hold her2st/ and singlecell/{CELLS}.")
    words = make_wordings(data)
    names = sorted(p.parent.name for p in (data / "her2st").glob("*/counts.h5ad"))
    others = [n for n in names if n not in WITH_IMAGE]
    images = {n: sw.datasets.her2st(n, data_dir=data) for n in (("A1", "C3") if smoke else WITH_IMAGE)}
    texts = {n: _captioned(data, n) for n in (others[::8] if smoke else others)}
    cells = ad.read_h5ad(path)
    captions.add_reference_captions(cells)
    cells.obs["patient"] = "CID4465"
    return TrainingData(images, texts, cells, words)


def _captioned(data: Path, name: str) -> AnnData:
    table = sw.datasets.her2st(name, data_dir=data, with_image=False)["table"].copy()
    table.uns.pop("spatialdata_attrs")
    captions.add_captions(table)
    return table
