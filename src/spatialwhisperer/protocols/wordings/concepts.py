"""What the captions of the breast sections are called in other words: names that people use, by hand.

A concept is true of the rows of one or several captions: "neoplasm" of invasive and of in situ carcinoma and of malignant cells. Names of
the Cell Ontology and of the label map are added by :mod:`~spatialwhisperer.protocols.wordings.generate`.
"""

from __future__ import annotations

from dataclasses import dataclass

from spatialwhisperer.protocols.captions import CELLS, REFERENCE, REGIONS

INVASIVE, IN_SITU = REGIONS["invasive cancer"], REGIONS["cancer in situ"]
MALIGNANT, NORMAL = REFERENCE["Cancer Epithelial"], REFERENCE["Normal Epithelial"]
IMMUNE = REGIONS["immune infiltrate"]


@dataclass(frozen=True)
class Concept:
    """Something that rows show, and what it is called.

    Attributes
    ----------
    target
        Class of :data:`~spatialwhisperer.protocols.captions.TARGETS` that its names ask for; ``None`` where they name a part of it.
    captions
        Captions whose rows it is true of.
    names
        Names, in which no other concept is named.
    terms
        Ids of the Cell Ontology: their names, exact synonyms and definitions, and those of their kinds in the label map, are wordings.
    signatures
        Names of marker signatures.
    absent
        Texts that say that it is not there, without naming it.
    """

    target: str | None
    captions: tuple[str, ...]
    names: tuple[str, ...]
    terms: tuple[str, ...] = ()
    signatures: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


CONCEPTS = {
    "tumour": Concept(
        "tumour",
        (INVASIVE, IN_SITU, MALIGNANT),
        (
            "tumour",
            "cancer",
            "neoplasm",
            "carcinoma",
            "malignancy",
            "breast cancer",
            "malignant tumour",
            "malignant neoplasm",
            "mammary carcinoma",
            "adenocarcinoma of the breast",
            "tumour cells",
            "cancer cells",
            "neoplastic cells",
            "carcinoma cells",
            "tumor tissue",
            "cancerous tissue",
            "ductal carcinoma",
            "HER2-positive breast carcinoma",
            "neoplasia",
            "tumour nests",
        ),
        ("CL:0001064",),
        ("core_signature_1",),
        (
            "benign",
            "benign breast tissue",
            "benign breast tissue, no carcinoma",
            "non-malignant tissue",
            "benign changes",
        ),
    ),
    "invasive": Concept(
        None,
        (INVASIVE,),
        (
            "invasive cancer",
            "invasive carcinoma of no special type",
            "infiltrating ductal carcinoma",
            "invasive tumour",
            "infiltrating breast cancer",
        ),
    ),
    "in situ": Concept(
        None,
        (IN_SITU,),
        (
            "cancer in situ",
            "DCIS",
            "intraductal carcinoma",
            "non-invasive ductal carcinoma",
            "carcinoma cells within ducts",
        ),
    ),
    "stroma": Concept(
        "connective",
        (REGIONS["connective tissue"],),
        (
            "connective tissue",
            "stroma",
            "fibrous tissue",
            "fibrous stroma",
            "collagen",
            "collagen fibres",
            "collagenous stroma",
            "stromal tissue",
            "fibrosis",
            "extracellular matrix",
            "dense connective tissue",
            "fibroconnective tissue",
            "desmoplastic stroma",
        ),
    ),
    "fibroblasts": Concept(
        "CAFs",
        (CELLS["CAFs"],),
        (
            "fibroblasts",
            "CAFs",
            "cancer-associated fibroblasts",
            "tumour-associated fibroblasts",
            "activated fibroblasts",
            "myofibroblasts",
            "stromal fibroblasts",
            "fibroblastic cells",
        ),
        ("CL:0000057", "CL:0000186"),
        ("CAFs MSC iCAF-like", "CAFs myCAF-like"),
    ),
    "fat": Concept(
        "adipose",
        (REGIONS["adipose tissue"],),
        (
            "fat",
            "adipose tissue",
            "fat tissue",
            "fatty tissue",
            "adipocytes",
            "fat cells",
            "lipid-storing cells",
            "mature adipocytes",
            "breast fat",
            "white adipose tissue",
            "fat lobules",
        ),
        ("CL:0000136",),
    ),
    "immune": Concept(
        "immune",
        (IMMUNE,),
        (
            "immune infiltrate",
            "immune cells",
            "inflammation",
            "inflammatory infiltrate",
            "inflammatory cells",
            "lymphocytic infiltrate",
            "tumour-infiltrating lymphocytes",
            "lymphoid aggregate",
            "lymphoid tissue",
            "tertiary lymphoid structure",
            "mononuclear cell infiltrate",
            "chronic inflammation",
            "leukocytes",
            "white blood cells",
        ),
        ("CL:0000738",),
        ("core_signature_3", "tls_signature"),
    ),
    "lymphocytes": Concept(
        "immune",
        (IMMUNE, CELLS["T-cells"], CELLS["B-cells"]),
        ("lymphocytes", "small lymphocytes", "lymphoid cells"),
        ("CL:0000542",),
    ),
    "glands": Concept(
        "glands",
        (REGIONS["breast glands"],),
        (
            "breast glands",
            "mammary glands",
            "mammary ducts",
            "breast ducts",
            "breast lobules",
            "normal ducts and lobules",
            "terminal duct lobular unit",
            "glandular tissue",
            "normal breast epithelium",
            "benign glands",
            "acini of the mammary gland",
        ),
    ),
    "mammary epithelium": Concept(
        "glands",
        (REGIONS["breast glands"], NORMAL),
        (
            "normal epithelial cells of the breast",
            "benign breast epithelial cells",
            "normal ductal epithelium",
            "luminal cells of the breast",
            "myoepithelial cells",
        ),
        ("CL:0002327", "CL:0002326"),
        ("Normal epithelial",),
    ),
    "epithelium": Concept(
        "Epithelial",
        (CELLS["Epithelial"],),
        ("epithelial cells", "epithelium", "epithelial tissue", "keratin-positive cells", "sheets of epithelial cells"),
        ("CL:0000066",),
    ),
    "B cells": Concept(
        "B-cells",
        (CELLS["B-cells"],),
        ("B cells", "B-cell lymphocytes", "CD20-positive lymphocytes", "follicular B cells"),
        ("CL:0000236",),
        ("B cells memory", "B cells naive"),
    ),
    "T cells": Concept(
        "T-cells",
        (CELLS["T-cells"],),
        ("T cells", "T-cell lymphocytes", "CD3-positive lymphocytes", "cytotoxic T cells", "helper T cells"),
        ("CL:0000084",),
        ("T cells CD4 IL7R", "T cells CD4 Tfh CXCL13", "T regs FOXP3", "T cell CD8 TIL dysfunction"),
    ),
    "plasma cells": Concept(
        "Plasma Cells",
        (CELLS["Plasma Cells"],),
        ("plasma cells", "antibody-secreting cells", "plasmablasts", "immunoglobulin-producing cells"),
        ("CL:0000786", "CL:0000980"),
        ("Plasmablasts",),
    ),
    "myeloid cells": Concept(
        "Myeloid",
        (CELLS["Myeloid"],),
        (
            "myeloid cells",
            "macrophages",
            "tumour-associated macrophages",
            "monocytes",
            "dendritic cells",
            "histiocytes",
            "mononuclear phagocytes",
        ),
        ("CL:0000763", "CL:0000235", "CL:0000576", "CL:0000451"),
        ("Macrophage M1", "Macrophage M2", "cDC"),
    ),
    "endothelium": Concept(
        "Endothelial",
        (CELLS["Endothelial"],),
        (
            "endothelial cells",
            "endothelium",
            "blood vessels",
            "vessels",
            "vasculature",
            "capillaries",
            "lymphatic vessels",
            "vascular lining cells",
        ),
        ("CL:0000115",),
        ("Endothelial",),
    ),
    "perivascular cells": Concept(
        "PVL",
        (CELLS["PVL"],),
        (
            "perivascular cells",
            "pericytes",
            "vascular smooth muscle",
            "mural cells",
            "smooth muscle cells of vessels",
            "vessel wall muscle",
        ),
        ("CL:0000669", "CL:0000359"),
        ("PVL differentiated", "PVL immature"),
    ),
}
"""Concepts by name."""
