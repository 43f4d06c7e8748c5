"""Which texts the embedded model reads as negations, by the odds that a text does not negate before it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer.networks.heads import SignedLinear
from spatialwhisperer.networks.negations import EVEN_ODDS, ORDINARY_ODDS, prior_odds
from spatialwhisperer.protocols.wordings.generate import ONTOLOGY, make_wordings

if TYPE_CHECKING:
    from pathlib import Path


def negations(data: Path) -> pd.DataFrame:
    """Count the texts that the embedded model reads as negations: wordings of its training, and names of cell types.

    Parameters
    ----------
    data
        Folder of the data.
    """
    words = make_wordings(data)
    names = [term.name for term in sw.models.Ontology.read(data / "text" / ONTOLOGY).terms.values()]
    groups = {
        "wordings that negate": [w.text for w in words if w.kind == "negation"],
        "other wordings": [w.text for w in words if w.kind != "negation"],
        'names of the Cell Ontology with "negative"': [name for name in names if "negative" in name],
        "other names of the Cell Ontology": [name for name in names if "negative" not in name],
    }
    table = pd.DataFrame.from_dict({group: _counts(texts) for group, texts in groups.items()}, orient="index")
    table.index.name = "read as negations"
    return table


def _counts(texts: list[str]) -> dict[str, int]:
    logits = _logits(texts)
    prior: dict[str, Any] = {"even odds": EVEN_ODDS, "three to one": ORDINARY_ODDS, "as shipped": prior_odds(texts)}
    return {"texts": len(texts)} | {name: int((logits + np.log(odds) < 0).sum()) for name, odds in prior.items()}


def _logits(texts: list[str]) -> np.ndarray:
    """Of the logistic regression of the text head: below zero where a text is more likely to negate than not, at even odds."""
    import torch

    head = sw.models.default_model().heads["text"]
    if not isinstance(head, SignedLinear):
        raise TypeError(f"The text head of the embedded model is a {type(head).__name__}, which knows no negations.")
    with torch.inference_mode():
        return head.sign(torch.from_numpy(sw.pp.embed_texts(texts)))[:, 0].numpy()
