"""What a model knows by name: its labels, and texts whose features are stored, so that no text encoder is needed."""

from __future__ import annotations

import json
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._messages import found
from spatialwhisperer.models.ontology import Ontology

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_CONFIG, _TENSORS, _FEATURES = "config.json", "model.safetensors", "features"


class Vocabulary:
    """The labels of a model with their descriptions, and the text-encoder features of everything it knows by name.

    Texts are matched without regard to case and outer blanks.

    Parameters
    ----------
    labels
        Label to ``{"prompts": [description, …], "cl": id in the ontology, or None}``; the labels that a model offers by itself.
    texts
        Every text with a stored feature: prompts, names, synonyms.
    features
        Feature of each text, from the text encoder and before the model's text head; float32, shape (n_texts, d).
    ontology
        The terms that labels belong to.

    Raises
    ------
    ValueError
        If texts repeat, features do not fit them, a prompt has no feature, or an id is not in the ontology.

    Examples
    --------
    >>> import numpy as np
    >>> import spatialwhisperer as sw
    >>> ontology = sw.models.Ontology([sw.models.Term("CL:0000084", "T cell")])
    >>> labels = {
    ...     "T cells": {"prompts": ["T lymphocytes"], "cl": "CL:0000084"},
    ...     "fat": {"prompts": ["fat tissue"], "cl": None},
    ... }
    >>> vocabulary = sw.models.Vocabulary(
    ...     labels, ["T lymphocytes", "fat tissue"], np.eye(2, dtype=np.float32), ontology
    ... )
    >>> features, missing = vocabulary.lookup(["Fat tissue", "bone"])
    >>> features.shape, missing
    ((2, 2), ['bone'])
    """

    def __init__(
        self, labels: Mapping[str, Mapping[str, Any]], texts: Sequence[str], features: np.ndarray, ontology: Ontology
    ) -> None:
        self.texts = [str(t) for t in texts]
        self.features = np.ascontiguousarray(features, dtype=np.float32)
        self.ontology = ontology
        self._row = _rows(self.texts)
        if self.features.ndim != 2 or len(self.features) != len(self.texts) or not self.features.size:
            raise ValueError(
                f"{len(self.texts)} texts need features of shape (n_texts, d); found {self.features.shape}."
            )
        if not np.isfinite(self.features).all():
            bad = [self.texts[i] for i in np.flatnonzero(~np.isfinite(self.features).all(axis=1))]
            raise ValueError(f"The features of {found(bad, 4)} are not finite.")
        self.labels = {str(name): self._checked(str(name), label) for name, label in labels.items()}
        self._label = {_key(name): name for name in self.labels}
        if len(self._label) != len(self.labels):
            raise ValueError("Labels repeat when case and outer blanks are left out; give each once.")

    @property
    def dim(self) -> int:
        """Length of a feature."""
        return self.features.shape[1]

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and _key(text) in self._row

    def lookup(self, texts: Sequence[str]) -> tuple[np.ndarray, list[str]]:
        """Features of texts, and which texts have none.

        Parameters
        ----------
        texts
            The texts.

        Returns
        -------
        Float32 array of shape (n, d), NaN in the rows of unknown texts; and the unknown texts, each once, in order.
        """
        rows = np.array([self._row.get(_key(t), -1) for t in texts], dtype=np.int64)
        out = np.full((len(rows), self.dim), np.nan, np.float32)
        out[rows >= 0] = self.features[rows[rows >= 0]]
        return out, list(dict.fromkeys(t for t, row in zip(texts, rows, strict=True) if row < 0))

    def prompts(self, label: str) -> list[str]:
        """Descriptions of a label; of another text the text itself."""
        name = self._label.get(_key(label))
        return [label] if name is None else list(self.labels[name]["prompts"])

    def nearest(self, text: str, n: int = 3) -> list[str]:
        """Labels and texts that are spelt most like a text, the best first."""
        known = {_key(t): t for t in (*self.texts, *self.labels)}
        # get_close_matches compares with every text: those that share a word come first, the rest only where there are none
        words = set(_key(text).split())
        sharing = [k for k in known if words & set(k.split())]
        close = get_close_matches(_key(text), sharing, n=n, cutoff=0.3) or get_close_matches(_key(text), known, n=n)
        return [known[k] for k in close]

    def write(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into a folder that is made.

        Raises
        ------
        FileExistsError
            If the folder exists.
        """
        from safetensors.numpy import save_file

        folder = Path(folder)
        folder.mkdir(parents=True)
        config = {"labels": self.labels, "texts": self.texts, "ontology": self.ontology.to_json()}
        (folder / _CONFIG).write_text(json.dumps(config, ensure_ascii=False) + "\n", encoding="utf-8")
        save_file({_FEATURES: self.features}, folder / _TENSORS)

    @classmethod
    def read(cls, folder: str | Path) -> Vocabulary:
        """Read what `write` wrote.

        Raises
        ------
        ValueError
            If the folder does not hold a vocabulary.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        folder = Path(folder)
        try:
            config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
            features = load_file(folder / _TENSORS)[_FEATURES]
            return cls(config["labels"], config["texts"], features, Ontology.from_json(config["ontology"]))
        except (AttributeError, OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise ValueError(f"{folder} does not hold a vocabulary ({error}). Save the model again.") from error

    def __repr__(self) -> str:
        return f"Vocabulary({len(self.labels)} labels, {len(self.texts)} texts, {len(self.ontology)} terms)"

    def _checked(self, name: str, label: Mapping[str, Any]) -> dict[str, Any]:
        prompts, cl = label.get("prompts"), label.get("cl")
        if not name.strip() or isinstance(prompts, str) or not prompts:
            raise ValueError(f"The label {name!r} needs a name and a list of prompts; found prompts={prompts!r}.")
        unknown = [p for p in prompts if p not in self]
        if unknown:
            raise ValueError(f"The prompts {found(unknown, 4)} of label {name!r} are not among the texts.")
        if cl is not None and cl not in self.ontology:
            raise ValueError(
                f"{cl!r} of label {name!r} is not in the ontology (such as {found(self.ontology.terms, 3)})."
            )
        return {"prompts": [str(p) for p in prompts], "cl": cl}


def _key(text: str) -> str:
    return text.strip().casefold()


def _rows(texts: Sequence[str]) -> dict[str, int]:
    rows = {_key(t): i for i, t in enumerate(texts)}
    if len(rows) != len(texts):
        repeated = [t for i, t in enumerate(texts) if rows[_key(t)] != i]
        raise ValueError(f"texts holds {found(repeated, 4)} more than once (case and outer blanks do not count).")
    if "" in rows:
        raise ValueError(f"texts[{rows['']}] is empty.")
    return rows
