"""Names of everything that the package reads from or writes to an object, once."""

from __future__ import annotations

UNS = "spatialwhisperer"
"""``.uns[UNS][key]`` holds the provenance of the result stored under ``key``."""

PREFIX = "sw_"
"""Prefix of the columns that the package writes by default."""

TILES = "sw_tiles"
"""``.obsm[TILES]``: tile centres, x and y in full-resolution pixels of the row's image. Also the grid's element name."""

IMAGE = "X_sw_image"
GENE = "X_sw_gene"
TEXT = "X_sw_text"

LABEL = "sw_label"
QUERY = "sw_query"
EXPRESSION = "sw_expression"
CLASS = "sw_class"
DOMAIN = "sw_domain"

NUCLEI_PER_MM2 = "sw_nuclei_per_mm2"
NUCLEUS_MEDIAN_AREA = "sw_nucleus_median_area_um2"
LYMPHOCYTE_LIKE = "sw_lymphocyte_like_fraction"
"""Columns of ``.obs`` that the image encoder ``nuclei`` fills."""

PATIENT = "patient"
"""Column of ``.obs`` with the patient, which calls use where it is there and no other one is named."""


def features(encoder: str) -> str:
    """Key of an encoder's features in ``.obsm``; characters that storage formats refuse are replaced."""
    return "X_" + encoder.replace("/", "_").replace(":", "_").replace(" ", "_")


def confidence(label: str) -> str:
    """Column of ``.obs`` with the confidence of a label column."""
    return f"{label}_confidence"


def scores(label: str) -> str:
    """Key of ``.obsm`` with all class scores behind a label column."""
    return f"{label}_scores"


def wording_sd(label: str) -> str:
    """Key of ``.obsm`` with the standard deviation of each score over the sentences of its label."""
    return f"{label}_wording_sd"


def agreement(label: str) -> str:
    """Column of ``.obs`` with the agreement of image and genes on a label column."""
    return f"{label}_agreement"


def gene_label(label: str) -> str:
    """Column of ``.obs`` with the labels that the genes give, beside those of the image."""
    return f"{label}_gene"


def probability(label: str) -> str:
    """Key of ``.obsm`` with the probability of each class behind a label column."""
    return f"{label}_probability"


def margin(label: str) -> str:
    """Column of ``.obs`` with the distance of the best label from the second."""
    return f"{label}_margin"


def reason(label: str) -> str:
    """Column of ``.obs`` with the reason why a row has no label."""
    return f"{label}_reason"


def ontology(label: str) -> str:
    """Column of ``.obs`` with the ontology id of a label column."""
    return f"{label}_cl"


def std(expression: str) -> str:
    """Column of ``.obs`` with the standard deviation among retrieved neighbours."""
    return f"{expression}_std"


def beside_labels(label: str) -> tuple[str, ...]:
    """All names under which parts of a label column may be stored beside it, in ``.obs``, ``.obsm`` or ``.uns``."""
    genes = gene_label(label)
    return (*written_beside(label), agreement(label), genes, f"{genes}_colors")


def written_beside(label: str) -> tuple[str, ...]:
    """Those of them that an annotation writes itself; the agreement with the genes is another call's."""
    parts = (confidence, scores, wording_sd, probability, margin, reason, ontology)
    return (*(part(label) for part in parts), f"{label}_colors")
