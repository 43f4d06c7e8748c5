"""The labels of the embedded model: cell types of breast tissue under their Cell Ontology names, each with its prompts."""

from __future__ import annotations

from typing import Any

LABELS: dict[str, dict[str, Any]] = {
    "malignant cell": {
        "cl": "CL:0001064",
        "prompts": [
            "invasive breast carcinoma",
            "malignant breast epithelial cells",
            "ductal carcinoma in situ of the breast",
        ],
    },
    "mammary gland epithelial cell": {
        "cl": "CL:0002327",
        "prompts": ["normal breast glands and ducts", "normal mammary epithelial cells"],
    },
    "fibroblast": {
        "cl": "CL:0000057",
        "prompts": ["fibrous connective tissue stroma", "cancer-associated fibroblasts in the tumour stroma"],
    },
    "fat cell": {"cl": "CL:0000136", "prompts": ["adipose tissue with fat cells"]},
    "endothelial cell": {"cl": "CL:0000115", "prompts": ["endothelial cells of blood and lymphatic vessels"]},
    "pericyte": {"cl": "CL:0000669", "prompts": ["perivascular cells: pericytes and vascular smooth muscle"]},
    "T cell": {"cl": "CL:0000084", "prompts": ["T lymphocytes", "dense lymphocytic immune infiltrate"]},
    "B cell": {"cl": "CL:0000236", "prompts": ["B lymphocytes", "dense lymphocytic immune infiltrate"]},
    "plasma cell": {"cl": "CL:0000786", "prompts": ["plasma cells that secrete antibodies"]},
    "myeloid cell": {"cl": "CL:0000763", "prompts": ["myeloid cells: macrophages, monocytes and dendritic cells"]},
}
"""Label -> Cell Ontology id and the texts whose embeddings are averaged."""

REGIONS: dict[str, tuple[str, ...]] = {
    "invasive cancer": ("malignant cell",),
    "cancer in situ": ("malignant cell",),
    "connective tissue": ("fibroblast",),
    "adipose tissue": ("fat cell",),
    "immune infiltrate": ("T cell", "B cell", "plasma cell", "myeloid cell"),
    "breast glands": ("mammary gland epithelial cell",),
}
"""A pathologist's region -> the labels that are right there, for calibration."""
