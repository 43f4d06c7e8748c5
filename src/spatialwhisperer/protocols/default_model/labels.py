"""The labels of the embedded model: cell types of breast tissue by their Cell Ontology names, each with its prompts."""

from __future__ import annotations

from spatialwhisperer.models.vocabulary import Label

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

REGIONS: dict[str, tuple[str, ...]] = {
    "invasive cancer": ("malignant cell",),
    "cancer in situ": ("malignant cell",),
    "connective tissue": ("fibroblast",),
    "adipose tissue": ("fat cell",),
    "immune infiltrate": ("T cell", "B cell", "plasma cell", "myeloid cell"),
    "breast glands": ("mammary gland epithelial cell",),
}
"""Labels that are correct in each of the pathologist's regions, for calibration."""
