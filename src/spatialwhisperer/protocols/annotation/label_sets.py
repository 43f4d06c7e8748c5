"""What the published annotation benchmarks score: classes, how they are grouped, their prompts, and the published results.

Source: Schaefer et al., *Transitive Representation Learning Enhances Histopathology Annotation* (ICML 2026), from the paper's public
code and notes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Prompts:
    """Words for the classes.

    Attributes
    ----------
    words
        Class of the data -> its text.
    template
        Sentence with ``{}`` in the place of the text of the class.
    source
        Who used them.
    note
        What a comparison of numbers must take into account.
    """

    words: Mapping[str, str]
    template: str
    source: str
    note: str = ""

    def text(self, name: str) -> str:
        """The prompt of a class, in which the word "cells" stands once."""
        word = self.words[name]
        return self.template.replace("{}", word.removesuffix(" cells") if "{} cells" in self.template else word)


@dataclass(frozen=True)
class LabelSet:
    """One benchmark.

    Attributes
    ----------
    title
        What tables call it.
    groups
        Reported class -> the classes of the data whose scores and counts are summed.
    ignored
        Classes that are never prompted, and whose nuclei do not count: background.
    unscored
        Classes that are neither prompted nor reported, whose nuclei do count towards the most frequent class of a tile.
    dropped
        Tiles in which one of these is the most frequent class are left out.
    prompts
        By name.
    published
        Macro AUROC by method and prompts.
    published_by_class
        AUROC of the reported classes by method.
    images
        Names of the images that were scored; empty for all.
    """

    title: str
    groups: Mapping[str, tuple[str, ...]]
    prompts: Mapping[str, Prompts]
    published: Mapping[str, float]
    published_by_class: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    ignored: tuple[str, ...] = ("Background",)
    unscored: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    images: tuple[str, ...] = ()

    @property
    def prompted(self) -> list[str]:
        """Classes of the data that need a prompt."""
        return [name for members in self.groups.values() for name in members]

    def choose(self, prompts: str) -> Prompts:
        """Prompts by name.

        Raises
        ------
        ValueError
            If there are none of that name.
        """
        if prompts not in self.prompts:
            raise ValueError(f"{self.title} has no prompts {prompts!r}; it has {listing(self.prompts)}.")
        return self.prompts[prompts]


_TISSUE = "a tissue sample containing {}"
_SAMPLE = "A sample of {} cells"
_TEMPLATES = "prompts of the second set of the paper's PLIP and CONCH baselines"
_TUNED = (
    "The words for Connective/Soft tissue cells, Inflammatory and Neoplastic cells were chosen among twelve sets on five canvases of "
    "these test images, by the paper's authors; there the macro AUROC rose from 0.66 to 0.71. Compare with 'raw'."
)
_SUSPECT = (
    "Published PathoCell numbers of these prompts are means over seven of the thirteen classes: the paper's script loses every class "
    "whose name ends in 'cells'. They are not listed here."
)


def _same(names: tuple[str, ...]) -> dict[str, str]:
    return {name: name for name in names}


def _prompt_sets(
    raw: Mapping[str, str], words: Mapping[str, str], *, note: str, sample_note: str = ""
) -> dict[str, Prompts]:
    return {
        "terms1": Prompts(words, "{}", "the main model and the first set of its baselines", note),
        "terms2": Prompts(words, _SAMPLE, _TEMPLATES, " ".join(t for t in (note, sample_note) if t)),
        "tissue": Prompts(words, _TISSUE, "the best of five templates tried on PathoCell", note),
        "raw": Prompts(raw, "{}", "the data set's own class names"),
    }


# ------------------------------------------------------------------------------------------------- PathoCell

_PATHOCELL = (
    "Adipocytes",
    "B cells",
    "Dendritic cells",
    "Granulocytes",
    "Macrophages/Monocytes",
    "NK cells",
    "Nerves",
    "Plasma cells",
    "Smooth muscle",
    "Stroma",
    "T cells",
    "Tumor cells",
    "Vasculature/Lymphatics",
)


def _pathocell_by_class(*values: float) -> dict[str, float]:
    return dict(zip(_PATHOCELL, values, strict=True))


PATHOCELL = LabelSet(
    title="PathoCell, 13 classes",
    groups={name: (name,) for name in _PATHOCELL},
    unscored=("Other cells",),
    prompts=_prompt_sets(_same(_PATHOCELL), _same(_PATHOCELL), note="", sample_note=_SUSPECT),
    published={
        "SpatialWhisperer, released (terms1)": 0.630,
        "SpatialWhisperer, three seeds, mean (terms1)": 0.621,
        "SpatialWhisperer, released (tissue)": 0.647,
        "SpatialWhisperer + Quilt-1M (terms1)": 0.609,
        "SpatialWhisperer + harmonised Quilt-1M (terms1)": 0.645,
        "image–text on Quilt-1M, same architecture (terms1)": 0.566,
        "two-stage: image → expression → label": 0.550,
        "CONCH (terms1)": 0.546,
        "MUSK (terms1)": 0.563,
        "PLIP (terms1)": 0.488,
        "OmiCLIP, short marker lists": 0.491,
        "OmiCLIP, long marker lists": 0.478,
    },
    published_by_class={
        "SpatialWhisperer, released (terms1)": _pathocell_by_class(
            0.473, 0.726, 0.611, 0.636, 0.712, 0.457, 0.541, 0.639, 0.734, 0.633, 0.734, 0.575, 0.720
        ),
        "image–text on Quilt-1M, same architecture (terms1)": _pathocell_by_class(
            0.526, 0.707, 0.552, 0.563, 0.403, 0.451, 0.591, 0.596, 0.637, 0.599, 0.701, 0.535, 0.499
        ),
        "two-stage: image → expression → label": _pathocell_by_class(
            0.500, 0.586, 0.500, 0.591, 0.740, 0.362, 0.468, 0.585, 0.691, 0.681, 0.453, 0.500, 0.500
        ),
    },
)

# ------------------------------------------------------------------------------------------------- Lizard

_LIZARD = ("Neutrophil", "Epithelial", "Lymphocyte", "Plasma", "Eosinophil", "Connective tissue")
_LIZARD_WORDS = {name: name.lower() for name in _LIZARD} | {"Connective tissue": "fibroblast"}


def _numbered(**numbers: str) -> tuple[str, ...]:
    return tuple(f"{source}_{number}" for source, row in numbers.items() for number in row.split())


LIZARD = LabelSet(
    title="Lizard, 3 classes",
    groups={
        "Epithelial": ("Epithelial",),
        "Leukocyte": ("Neutrophil", "Lymphocyte", "Eosinophil"),
        "Fibroblast": ("Connective tissue",),
    },
    dropped=("Plasma",),
    prompts=_prompt_sets(_same(_LIZARD), _LIZARD_WORDS, note=""),
    published={
        "SpatialWhisperer, released (terms1)": 0.764,
        "SpatialWhisperer, three seeds, mean (terms1)": 0.749,
        "SpatialWhisperer + Quilt-1M (terms1)": 0.713,
        "image–text on Quilt-1M, same architecture (terms1)": 0.642,
        "two-stage: image → expression → label": 0.662,
        "CONCH (terms1)": 0.615,
        "CONCH (terms2)": 0.581,
        "MUSK (terms1)": 0.556,
        "MUSK (terms2)": 0.563,
        "PLIP (terms1)": 0.528,
        "PLIP (terms2)": 0.528,
        "OmiCLIP, short marker lists": 0.611,
        "OmiCLIP, long marker lists": 0.646,
    },
    images=_numbered(
        crag="2 3 7 9 11 12 13 24 26 29 34 41 45 49 51 52 53 57 61 62 63",
        dpath="4 7 16 17 18 19 21 24 27 30 32 34 40 42 46 49 50 52 59 69",
        glas="1 2 4 6 7 11 12 13 14 17 20 22 23 27 29 30 31 35 38 39 40 43 44 45 48 49 54 55 61",
    ),
)

# ------------------------------------------------------------------------------------------------- PanNuke

_PANNUKE = ("Epithelial", "Dead Cells", "Connective/Soft tissue cells", "Inflammatory", "Neoplastic cells")
_PANNUKE_WORDS = {
    "Epithelial": "epithelial",
    "Dead Cells": "dead cells",
    "Connective/Soft tissue cells": "fibroblasts",
    "Inflammatory": "leukocytes",
    "Neoplastic cells": "cancer cells",
}

PANNUKE = LabelSet(
    title="PanNuke, 4 classes",
    groups={name: (name,) for name in _PANNUKE if name != "Dead Cells"},
    dropped=("Dead Cells",),
    prompts=_prompt_sets(_same(_PANNUKE), _PANNUKE_WORDS, note=_TUNED),
    published={
        "SpatialWhisperer, released (terms1)": 0.689,
        "SpatialWhisperer, three seeds, mean (terms1)": 0.687,
        "SpatialWhisperer + Quilt-1M (terms1)": 0.665,
        "image–text on Quilt-1M, same architecture (terms1)": 0.713,
        "two-stage: image → expression → label": 0.599,
        "CONCH (terms1)": 0.604,
        "CONCH (terms2)": 0.624,
        "MUSK (terms1)": 0.512,
        "MUSK (terms2)": 0.530,
        "PLIP (terms1)": 0.584,
        "PLIP (terms2)": 0.588,
        "OmiCLIP, short marker lists": 0.520,
        "OmiCLIP, long marker lists": 0.525,
    },
)

LABEL_SETS = {"pathocell": PATHOCELL, "lizard": LIZARD, "pannuke": PANNUKE}
"""Benchmarks by the name of their data set."""
