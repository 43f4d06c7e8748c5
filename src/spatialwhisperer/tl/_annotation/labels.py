"""Labels in words: their names, the descriptions that prompt them, and their place in an ontology."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas.api.types import is_list_like

from spatialwhisperer._checks.texts import plain_text
from spatialwhisperer._messages import listing
from spatialwhisperer.models.ontology import Ontology
from spatialwhisperer.tl._embedding.texts import embed_texts

if TYPE_CHECKING:
    from spatialwhisperer.models.whisperer import Whisperer

_APART = "Leave one out, or describe each in words of its own: labels={name: description}."
_SAME = 1e-5

Labels = Sequence[str] | Mapping[str, str | Sequence[str]]


def check_labels(labels: Any, model: Whisperer) -> tuple[list[str], list[list[str]]]:
    """Names and descriptions of the labels.

    A name without a description takes those of the model's vocabulary: the descriptions of the label of that name or of that
    ontology term, else the name and the exact synonyms of the term, which is found by id, name or synonym. A name that is not in
    the vocabulary describes itself, and so does every name where the model has no vocabulary.

    Raises
    ------
    ValueError, TypeError
        If they are empty, repeated, fewer than two, or not text. If two of them are described by the same text. If they are a Series
        whose index is text.
    """
    if labels is None:
        labels = model.labels
        if not labels:
            raise ValueError("This model knows no captions of its own; pass labels=[…].")
    if isinstance(labels, str):
        raise TypeError(f"labels must be a list or a mapping, not the string {labels!r}. For one text use sw.tl.query.")
    if isinstance(labels, set | frozenset):
        raise TypeError("labels must have an order, and a set has none. Pass a list: sorted(labels).")
    if not is_list_like(labels) or isinstance(labels, Iterator):
        raise TypeError(f"labels must be a list of names or a mapping from name to description, not {labels!r}.")
    if isinstance(labels, pd.Series) and any(isinstance(name, str) for name in labels.index):
        # a column of a table, whose index names rows, looks the same as descriptions by name
        raise TypeError(
            "labels is a Series whose index is text: it may mean names or descriptions of the names in the index. For names pass "
            "labels=column.dropna().unique(), for descriptions labels=series.to_dict()."
        )
    if isinstance(labels, Mapping):
        classes = list(labels)
        prompts = [list(d) if is_list_like(d) else [d] for d in labels.values()]
    else:
        named = [_described(name, model) for name in labels]
        classes, prompts = [name for name, _ in named], [p for _, p in named]
    wrong = [x for x in [*classes, *(d for p in prompts for d in p)] if not isinstance(x, str)]
    if wrong:
        raise TypeError(
            f"Labels and descriptions must be text; found {listing(dict.fromkeys(map(str, wrong)), 3)}.{_each_once(labels)}"
        )
    if not all(map(plain_text, classes)) or not all(p and all(map(plain_text, p)) for p in prompts):
        raise ValueError("labels holds an empty name or a label without a description.")
    repeated = sorted({c for c in classes if classes.count(c) > 1})
    if repeated:
        raise ValueError(
            f"labels holds {listing(repeated)} more than once."
            + (_each_once(labels) or " To describe a label in several ways pass a mapping.")
        )
    _check_texts(classes, prompts)
    if len(classes) < 2:
        raise ValueError(
            f"labels needs at least two names to choose from; found {listing(classes)}. For one text use sw.tl.query."
        )
    return classes, prompts


def _check_texts(classes: Sequence[str], prompts: Sequence[Sequence[str]]) -> None:
    """Refuse labels that are described by the same texts, where blanks and Unicode forms do not count."""
    first: dict[frozenset[str], str] = {}
    for name, texts in zip(classes, prompts, strict=True):
        said = frozenset(map(plain_text, texts))
        if said in first:
            raise ValueError(
                f"labels holds {first[said]!r} and {name!r}, which are both described by {listing(map(repr, sorted(said)), 3)}. {_APART}"
            )
        first[said] = name


def _each_once(labels: Any) -> str:
    """The remedy for a column of a table in the place of the labels."""
    return " Name each label of a column once: labels=column.dropna().unique()." if hasattr(labels, "dropna") else ""


def _described(label: Any, model: Whisperer) -> tuple[Any, list[Any]]:
    """Name and descriptions of a label that came as a name or an id."""
    vocabulary = model.vocabulary
    if vocabulary is None or not isinstance(label, str):
        return label, [label]
    prompts = model.prompts(label)
    if prompts != [label]:
        return label, prompts
    term = vocabulary.ontology.find(label)
    if term is None:
        return label, [label]
    entry = vocabulary.ontology.terms[term]
    # of an id the name is shown
    name = entry.name if label.strip().casefold() == term.casefold() else label
    own = [p for v in vocabulary.labels.values() if v.cl == term for p in v.prompts]
    # only some of the names of a term have stored features
    known = [t for t in (entry.name, *entry.synonyms) if t in vocabulary]
    return name, list(dict.fromkeys(own or known)) or [label]


def fill_templates(prompts: Sequence[Sequence[str]], templates: str | Sequence[str]) -> list[list[str]]:
    """Every description of every label in every template.

    Raises
    ------
    ValueError, TypeError
        If there is no template, or one without ``{}``, or that is not text.
    """
    several: list[Any] = [templates] if isinstance(templates, str) or not is_list_like(templates) else list(templates)
    if wrong := [t for t in several if not isinstance(t, str)]:
        raise TypeError(f"templates must be text with {{}} in the place of the description; found {listing(wrong, 3)}.")
    if not several or any("{}" not in t for t in several):
        raise ValueError(f"Each template needs {{}} in the place of the description; found {several!r}.")
    return [[t.replace("{}", d) for d in descriptions for t in several] for descriptions in prompts]


def sentence_embeddings(
    model: Whisperer, sentences: Sequence[Sequence[str]], *, device: str | None = None
) -> list[np.ndarray]:
    """Unit embeddings of the sentences of each label, each of shape (number of sentences, u)."""
    z = embed_texts(model, [s for group in sentences for s in group], device=device)
    return np.split(z, np.cumsum([len(group) for group in sentences])[:-1])


def class_embeddings(model: Whisperer, sentences: Sequence[Sequence[str]], *, device: str | None = None) -> np.ndarray:
    """Mean embedding of the sentences of each label, scaled back to unit length; shape (number of labels, u)."""
    return mean_embeddings(sentence_embeddings(model, sentences, device=device))


def label_embeddings(
    model: Whisperer, labels: Sequence[str], sentences: Sequence[Sequence[str]], *, device: str | None = None
) -> np.ndarray:
    """Embeddings of labels as `class_embeddings` computes them.

    Raises
    ------
    ValueError
        If two of them are the same; see `check_apart`.
    """
    text = class_embeddings(model, sentences, device=device)
    check_apart(labels, text)
    return text


def check_apart(labels: Sequence[str], text: np.ndarray) -> None:
    """Refuse labels with the same embedding, such as names that differ in case alone: every row would get the same score for both.

    Raises
    ------
    ValueError
        If two rows of ``text``, which are of unit length, are equal.
    """
    alike = np.argwhere(np.triu(text @ text.T > 1 - _SAME, 1))
    for i, j in alike:
        if np.allclose(text[i], text[j], rtol=0, atol=_SAME):
            raise ValueError(
                f"The model has the same embedding for the labels {labels[i]!r} and {labels[j]!r}. {_APART}"
            )


def mean_embeddings(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of the sentence embeddings of each label, scaled back to unit length; shape (number of labels, u)."""
    means = np.stack([part.mean(axis=0) for part in parts])
    return means / np.linalg.norm(means, axis=1, keepdims=True).clip(min=1e-12)


def wording_sd(z: np.ndarray, parts: Sequence[np.ndarray]) -> np.ndarray | None:
    """Standard deviation of the cosine of a row over the sentences of a label.

    Parameters
    ----------
    z
        Unit embeddings of rows, shape (n, u).
    parts
        Unit embeddings of the sentences of each label.

    Returns
    -------
    float32, shape (n, number of labels); NaN for labels with one sentence. ``None`` where all have one.
    """
    if all(len(part) < 2 for part in parts):
        return None
    out = np.full((len(z), len(parts)), np.nan, np.float32)
    for column, part in enumerate(parts):
        if len(part) > 1:
            out[:, column] = (z @ part.T).std(axis=1, ddof=1)
    return out


# ------------------------------------------------------------------------------------------------- ontology


def open_ontology(ontology: Ontology | str | Path | None, model: Whisperer) -> Ontology | None:
    """The ontology itself, the one in a file, or that of the model's vocabulary; ``None`` where there is none.

    Raises
    ------
    TypeError
        If ``ontology`` is neither an ontology nor a file.
    """
    if ontology is None:
        return None if model.vocabulary is None else model.vocabulary.ontology
    if isinstance(ontology, str | Path):
        return Ontology.read(ontology)
    if not isinstance(ontology, Ontology):
        raise TypeError(f"ontology must be an Ontology or a file, not {type(ontology).__name__}.")
    return ontology


def label_ids(classes: Sequence[str], labels: Any, model: Whisperer, ontology: Ontology | None) -> list[str | None]:
    """Id of each label: that of the vocabulary's label, else of the term of its name; ``None`` where there is none.

    Parameters
    ----------
    classes
        Names of the labels.
    labels
        What the caller passed, which may hold ids in the place of names.
    model
        Its vocabulary may state the id of a label.
    ontology
        Where names are looked up.
    """
    if ontology is None:
        return [None] * len(classes)
    vocabulary = model.vocabulary
    known = {} if vocabulary is None else {name: entry.cl for name, entry in vocabulary.labels.items()}
    given = classes if labels is None or isinstance(labels, Mapping) else [str(label) for label in labels]
    out = []
    for name, label in zip(classes, given, strict=True):
        term = known.get(name) or ontology.find(label) or ontology.find(name)
        out.append(term if term in ontology else None)
    return out


def find_terms(ontology: Ontology, terms: Any) -> list[str]:
    """Ids of terms that were given by id, name or synonym.

    Raises
    ------
    TypeError
        If they are not a list of texts.
    ValueError
        If there is none, or one is not in the ontology.
    """
    if (
        isinstance(terms, str)
        or not isinstance(terms, Sequence | np.ndarray)
        or any(not isinstance(t, str) for t in terms)
    ):
        raise TypeError(f"level must be a list of names or ids of terms, not {terms!r}.")
    ids = [ontology.find(term) for term in terms]
    unknown = [term for term, i in zip(terms, ids, strict=True) if i is None]
    if unknown or not ids:
        raise ValueError(
            f"level holds {listing(unknown)}, which the ontology of {len(ontology.terms)} terms does not name. "
            "Look terms up with ontology.find(name)."
        )
    return list(dict.fromkeys(i for i in ids if i is not None))
