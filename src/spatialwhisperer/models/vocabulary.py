"""Labels of a model, and texts whose features are stored, so that no text encoder is needed for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._artifact.artifact import Artifact
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._checks.values import check_text, check_texts
from spatialwhisperer._messages import listing
from spatialwhisperer._storage.schema import Stored, from_plain, to_plain
from spatialwhisperer.models.ontology import Ontology

if TYPE_CHECKING:
    from collections.abc import Sequence

KIND = "vocabulary"
_FEATURES = "features"


@dataclass(frozen=True)
class Label(Stored):
    """A label of a model's vocabulary.

    Attributes
    ----------
    prompts
        Descriptions of the label.
    cl
        Id of the label in the ontology; ``None`` where it has none.
    """

    prompts: tuple[str, ...]
    cl: str | None = None


@dataclass(frozen=True)
class _Plain(Stored):
    labels: Mapping[str, Label]
    texts: tuple[str, ...]
    ontology: Any


class Vocabulary:
    """Labels with their descriptions, and the stored features of texts.

    Texts match regardless of case and outer blanks.

    Parameters
    ----------
    labels
        Labels by name. An annotation that names no labels uses these.
    texts
        All texts with stored features: prompts, names, synonyms.
    features
        Features of the texts from the text encoder, before the model's text head; float32, shape (n_texts, d).
    ontology
        Ontology of the labels.

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
    ...     "T cells": sw.models.Label(("T lymphocytes",), "CL:0000084"),
    ...     "fat": sw.models.Label(("fat tissue",)),
    ... }
    >>> vocabulary = sw.models.Vocabulary(
    ...     labels, ["T lymphocytes", "fat tissue"], np.eye(2, dtype=np.float32), ontology
    ... )
    >>> features, missing = vocabulary.lookup(["Fat tissue", "bone"])
    >>> features.shape, missing
    ((2, 2), ['bone'])
    """

    def __init__(
        self, labels: Mapping[str, Label], texts: Sequence[str], features: np.ndarray, ontology: Ontology
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
            raise ValueError(f"The features of {listing(bad, 4)} are not finite.")
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

    @checked
    def lookup(self, texts: Sequence[str]) -> tuple[np.ndarray, list[str]]:
        """Look up the features of texts.

        Parameters
        ----------
        texts
            The texts.

        Returns
        -------
        Float32 array of shape (n, d), NaN in the rows of unknown texts; and the unknown texts, each once, in order.
        """
        check_texts("texts", texts)
        texts = list(texts)
        rows = np.array([self._row.get(_key(t), -1) for t in texts], dtype=np.int64)
        out = np.full((len(rows), self.dim), np.nan, np.float32)
        out[rows >= 0] = self.features[rows[rows >= 0]]
        return out, list(dict.fromkeys(t for t, row in zip(texts, rows, strict=True) if row < 0))

    @checked
    def prompts(self, label: str) -> list[str]:
        """Descriptions of a label; of another text the text itself."""
        name = self._label.get(_key(label))
        return [label] if name is None else list(self.labels[name].prompts)

    @checked
    def nearest(self, text: str, n: int = 3) -> list[str]:
        """Labels and texts with the most similar spelling, the most similar first."""
        check_text("text", text)
        known = {_key(t): t for t in (*self.texts, *self.labels)}
        # comparing with every text is slow: those with a word in common come first, the others only where there are none
        words = set(_key(text).split())
        sharing = [k for k in known if words & set(k.split())]
        close = get_close_matches(_key(text), sharing, n=n, cutoff=0.3) or get_close_matches(_key(text), known, n=n)
        return [known[k] for k in close]

    def artifact(self) -> Artifact:
        """Return everything that is stored of the vocabulary."""
        plain = _Plain(self.labels, tuple(self.texts), self.ontology.to_json())
        return Artifact(KIND, to_plain(plain), {_FEATURES: self.features})

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> Vocabulary:
        """Build the vocabulary that was stored.

        Raises
        ------
        ValueError
            If a value is missing or of another type, or features do not fit the texts.
        """
        plain = from_plain(_Plain, artifact.config, "the configuration of a vocabulary")
        if _FEATURES not in artifact.tensors:
            raise ValueError("A vocabulary needs the features of its texts, and there are none.")
        return cls(plain.labels, plain.texts, artifact.tensors[_FEATURES], Ontology.from_json(plain.ontology))

    def __repr__(self) -> str:
        return f"Vocabulary({len(self.labels)} labels, {len(self.texts)} texts, {len(self.ontology)} terms)"

    def _checked(self, name: str, label: Label) -> Label:
        if not name.strip() or isinstance(label.prompts, str) or not label.prompts:
            raise ValueError(f"The label {name!r} needs a name and a list of prompts; found prompts={label.prompts!r}.")
        unknown = [p for p in label.prompts if p not in self]
        if unknown:
            raise ValueError(f"The prompts {listing(unknown, 4)} of label {name!r} are not among the texts.")
        if label.cl is not None and label.cl not in self.ontology:
            raise ValueError(
                f"{label.cl!r} of label {name!r} is not in the ontology (such as {listing(self.ontology.terms, 3)})."
            )
        return label


def _key(text: str) -> str:
    return text.strip().casefold()


def _rows(texts: Sequence[str]) -> dict[str, int]:
    rows = {_key(t): i for i, t in enumerate(texts)}
    if len(rows) != len(texts):
        repeated = [t for i, t in enumerate(texts) if rows[_key(t)] != i]
        raise ValueError(f"texts holds {listing(repeated, 4)} more than once (case and outer blanks do not count).")
    if "" in rows:
        raise ValueError(f"texts[{rows['']}] is empty.")
    return rows
