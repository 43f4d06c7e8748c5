"""The labels of the embedded model: cell types of breast tissue by their Cell Ontology names, each with its prompts."""

from __future__ import annotations

from spatialwhisperer.models.configuration.annotation import Region
from spatialwhisperer.models.vocabulary import Label
from spatialwhisperer.protocols import captions

LABELS = {
    "malignant cell": Label(
        (
            "invasive breast carcinoma",
            "malignant breast epithelial cells",
            "ductal carcinoma in situ of the breast",
        ),
        "CL:0001064",
    ),
    "mammary gland epithelial cell": Label(
        ("normal breast glands and ducts", "normal mammary epithelial cells"), "CL:0002327"
    ),
    "fibroblast": Label(
        ("fibrous connective tissue stroma", "cancer-associated fibroblasts in the tumour stroma"), "CL:0000057"
    ),
    "fat cell": Label(("adipose tissue with fat cells",), "CL:0000136"),
    "endothelial cell": Label(("endothelial cells of blood and lymphatic vessels",), "CL:0000115"),
    "pericyte": Label(("perivascular cells: pericytes and vascular smooth muscle",), "CL:0000669"),
    "T cell": Label(("T lymphocytes", "dense lymphocytic immune infiltrate"), "CL:0000084"),
    "B cell": Label(("B lymphocytes", "dense lymphocytic immune infiltrate"), "CL:0000236"),
    "plasma cell": Label(("plasma cells that secrete antibodies",), "CL:0000786"),
    "myeloid cell": Label(("myeloid cells: macrophages, monocytes and dendritic cells",), "CL:0000763"),
}
"""Labels with their prompts, whose embeddings are averaged, and their Cell Ontology ids."""

TISSUE = {
    "tumour": Region(tuple(captions.TARGETS["tumour"]), ("malignant cell",)),
    "connective tissue": Region(tuple(captions.TARGETS["connective"]), ("fibroblast", "endothelial cell", "pericyte")),
    "adipose tissue": Region(tuple(captions.TARGETS["adipose"]), ("fat cell",)),
    "immune infiltrate": Region(tuple(captions.TARGETS["immune"]), ("T cell", "B cell", "plasma cell", "myeloid cell")),
    "breast glands": Region(tuple(captions.TARGETS["glands"]), ("mammary gland epithelial cell",)),
}
"""Regions, which are told before the labels in them; in the order of `captions.REGION_TARGETS`."""

PATHOLOGIST = {
    name: region
    for name, target in captions.REGION_TARGETS.items()
    for region, short in zip(TISSUE, dict.fromkeys(captions.REGION_TARGETS.values()), strict=True)
    if short == target
}
"""Region of each of the names that the pathologist uses."""

REGIONS = {name: TISSUE[region].labels for name, region in PATHOLOGIST.items()}
"""Labels that are correct in each of the pathologist's regions."""

REASONED_PARENTS = {"CL:0002327": ("CL:0000066",)}
"""Parents that follow from the logical definitions of the Cell Ontology and that the table of asserted parents lacks: a mammary gland
epithelial cell is defined as an epithelial cell that is part of a mammary gland (https://purl.obolibrary.org/obo/cl.owl)."""
