"""Parameters that many functions share, described once."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., object]")

_OPENING = """\
    How an object is opened: ``table_key`` (table of a SpatialData), ``image_key`` (image, one for all or by section),
    ``coordinate_system`` (in which shapes and image meet), ``library_key`` (column of ``.obs`` that names the library of each row),
    ``mpp`` (microns per full-resolution pixel, one for all or by section; where a SpatialData does not tell the full resolution of its
    image, per pixel of the image) and ``spot_pitch_um`` (centre-to-centre distance of the spots, from which ``mpp`` follows). What is
    left out is taken from :func:`spatialwhisperer.pp.tiles`, else from the object.
"""

PARAMETERS = {
    "data": """
data
    AnnData with ``.obsm["spatial"]`` in full-resolution pixels and images in ``.uns["spatial"]``, or SpatialData.
""",
    "model": """
model
    A trained model, its folder or its name on the Hugging Face hub, or the name of a published model of images and texts
    (:func:`spatialwhisperer.models.image_text_model`); ``None`` takes the embedded model.
""",
    "modality": """
modality
    What is embedded: ``"image"``, ``"gene"`` or another modality of the model; ``None`` takes the image where there is one, else genes.
""",
    "table_key": """
table_key
    Table of a SpatialData.
""",
    "tiles_of_slide": """
slide
    The slide from which they were computed (:func:`read_slide`); ``None`` returns the tiles alone.
image_key
    Image of the slide; ``None`` takes the only one.
""",
    "published_sections": """
folder
    The folder, or one whose folders hold the files.
with_image
    Read images.
""",
    "layer": """
layer
    Layer with raw counts; ``None`` takes ``.X``.
""",
    "batch_size": """
batch_size
    Tiles or rows in one pass; ``None`` takes ``settings.batch_size``. The result does not depend on it.
""",
    "device": """
device
    Torch device; ``None`` takes ``settings.device``.
""",
    "training_counts": """
counts
    Raw counts, CSR or dense, shape (n, genes).
genes
    Name of each column.
gene_ids
    Ensembl id of each column.
batch
    Batch of each row, shape (n,).
""",
    "n_top_genes": """
n_top_genes
    Highly variable genes to keep; ``None`` keeps every gene that is seen.
""",
    "diameter_um": """
diameter_um
    Size of a mark in microns; ``None`` takes that of the tiles of a grid, else most of the distance between neighbours.
""",
    "with_image": """
with_image
    Also draw the bare slide to the left of each section.
""",
    "sections": """
sections
    Which sections to draw, in which order; ``None`` takes all.
""",
    "section": """
section
    Which section; ``None`` takes the first, and says so where there are several.
""",
    "random_state": """
random_state
    Seed. The random state of the process is left alone.
""",
    "inplace": """
inplace
    Write to ``data`` and return ``None``, or return the result and write nothing.
""",
    "slide": f"""
**slide
{_OPENING}""",
    "slides": f"""
**slides
{_OPENING}\
    ``client``, a :class:`dask.distributed.Client`, distributes a list of paths over the workers of its cluster, each of which opens
    the model once.
""",
}

_MARK = re.compile(r"^([ \t]*)%\((\w+)\)s$", re.MULTILINE)


def shared(function: F) -> F:
    """Replace the marks (``%(data)s``) in a docstring by the shared descriptions."""
    if function.__doc__:
        function.__doc__ = _MARK.sub(_description, inspect.cleandoc(function.__doc__))
    return function


def _description(mark: re.Match[str]) -> str:
    return "\n".join(f"{mark[1]}{line}" for line in PARAMETERS[mark[2]].strip("\n").splitlines())
