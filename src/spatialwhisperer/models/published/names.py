"""Names and facts of published models that are known before one is opened."""

from __future__ import annotations

from spatialwhisperer.encoders.published.table import paired

PUBLISHED = ("Good-Lab/spatialwhisperer", "moritzschaefer/spatialwhisperer")
"""Repositories of the hub that hold a checkpoint of the published code, and not a model of this package."""

FILE = "spatialwhisperer.ckpt"
DOWNLOAD_MB = 530.0
"""Size of that file, as its page states it."""

TEXT, GENE, IMAGE = "biobert", "geneformer", "uni2-h"
LICENCE = "CC-BY-NC-4.0"
TRAINED_ON = (
    "384 human Visium sections of HEST-1K (images and genes); CELLxGENE Census and ARCHS4/GEO (genes and captions)"
)


def image_text_names() -> list[str]:
    """Names of the published models of images and texts."""
    return sorted(spec.name for spec in paired())
