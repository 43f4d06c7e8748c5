"""Captions from metadata: templates over cell type, tissue, disease and assay, in the words of ontologies."""

from __future__ import annotations

import hashlib
import string
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialwhisperer._access.result import Result
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.table.groups import group_name
from spatialwhisperer._access.tables import obs_of
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._checks.texts import plain_text, reads_missing
from spatialwhisperer._checks.values import check_whole
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import listing, warn
from spatialwhisperer._provenance import recorded
from spatialwhisperer.models.ontology import Ontology

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

FIELDS = ("cell_type", "tissue", "organ", "disease", "assay", "development_stage", "sex")
"""Columns of ``.obs`` that templates may name where the caller maps no others."""

TEMPLATES = (
    "{cell_type} of {tissue} from a donor with {disease}",
    "a sample of {cell_type}, {tissue}, {disease}",
    "{tissue} with {disease}: {cell_type}, measured by {assay}",
    "{cell_type} of {tissue}",
    "{cell_type} found in {tissue}",
    "cells of the type {cell_type} in {tissue}",
    "{tissue} with {disease}",
    "a section of {organ} with {disease}",
    "{cell_type}",
    "a sample of {tissue}",
    "a tissue section of {organ}",
)
"""Those that name more come first; a row takes of those that it has all fields for."""

_HEALTHY, _NO_DISEASE = {"normal", "healthy", "pato:0000461"}, "no known disease"
_UNKNOWN, _BETWEEN = "unknown", "||"
"""How CELLxGENE writes what nobody knows, and what it puts between several values (its schema 6.0)."""

_ID = "{}_ontology_term_id"

Value = tuple[str, str]
"""A value and its ontology id, which is the value itself where none is stated."""

Stated = tuple[Value, ...]
"""What a column states in a row: one value or several, such as two diseases."""


@shared
@checked
def caption_metadata(
    data: AnnData | SpatialData,
    *,
    ontologies: Ontology | str | Path | Sequence[Ontology | str | Path] = (),
    templates: Sequence[str] = TEMPLATES,
    fields: Mapping[str, str] | None = None,
    wordings: int = 3,
    free_key: str | None = None,
    key_added: str = "text",
    table_key: str | None = None,
    random_state: int = 0,
    inplace: bool = True,
) -> pd.DataFrame | None:
    """Write captions of rows from their metadata, in several wordings.

    Of the templates whose fields a row has, those that name most fields come first. The first wording of a row is the first of them in the
    names of the ontologies. The others take the next templates, with a name or a synonym by chance. Rows with equal metadata get
    equal captions, whatever the order of the rows, so that training takes them for positives of each other.

    Parameters
    ----------
    %(data)s
    ontologies
        Ontologies, such as the Cell Ontology, UBERON and MONDO, or their files (``.obo`` or ``.tsv``, see
        :meth:`spatialwhisperer.models.Ontology.read`). The id in the column ``<column>_ontology_term_id`` is looked up in each, then the
        value of the column, once for each distinct pair of both. What is in none stays as it is. Several values or ids in one cell, with
        "||" between them as in CELLxGENE, are looked up one by one and joined with "and".
    templates
        Sentences with fields in braces.
    fields
        Field of the templates to column of ``.obs``; ``None`` takes columns of the same name. "normal" and "healthy" read "no known disease" in a
        field with "disease" in its name, and are left out beside a disease. "unknown", "na" and "n/a" state nothing, like a missing value.
    wordings
        Number of captions of a row, fewer where there are not so many different ones.
    free_key
        Column with captions that somebody wrote; rows with one keep it, and get no templated one.
    key_added
        Column of ``.obs`` with the first wording; the others are ``<key_added>_2`` and so on.
    %(table_key)s
    random_state
        Seed of the choice of words.
    %(inplace)s

    Returns
    -------
    ``None``, or with ``inplace=False`` a data frame of the columns. In place it writes:

    ``.obs[key_added]``, ``.obs[key_added + "_2"]``, …
        The captions, to be named in ``CorpusSource(text_key=[…])``; missing where a row has none. Those of an earlier call are
        removed.
    ``.obs[key_added + "_origin"]``
        "free" or "templated"; missing where a row has no caption.
    ``.uns["spatialwhisperer"][key_added]`` : :class:`dict`
        Templates, seed, columns, fractions of free and templated captions, and how many values the ontologies know.

    Raises
    ------
    KeyError
        If a column that is named is not in ``.obs``.
    ValueError
        If no row has the fields of a template, a template has none, or ``wordings`` is not positive.

    Examples
    --------
    >>> import anndata as ad
    >>> import spatialwhisperer as sw
    >>> adata = ad.AnnData(obs={"cell_type": ["T cell", "B cell"], "tissue": ["breast", "breast"]})
    >>> t_cell = sw.models.Term("CL:0000084", "T cell", ("T lymphocyte",))
    >>> sw.pp.caption_metadata(adata, ontologies=sw.models.Ontology([t_cell]))
    >>> adata.obs["text"].tolist()
    ['T cell of breast', 'B cell of breast']
    """
    check_whole("wordings", wordings)
    slide = Slide.open(data, table_key=table_key)
    if inplace:
        slide.check_column(key_added)
    obs = obs_of(slide.table)
    named = _columns(obs, templates, fields, free_key)
    known = _read(ontologies)
    diseases = {column for name, column in named.items() if "disease" in name}
    stated = {column: _stated(obs, column, column in diseases) for column in dict.fromkeys(named.values())}
    words, resolved = _words(stated, diseases, known)
    captions = _captions(stated, named, words, templates, wordings, random_state)
    columns, origin = _with_free(obs, captions, free_key, wordings)
    if len(obs) and not any(c is not None for c in columns[0]):
        raise ValueError(
            f"No row has all fields of one of the templates. Fields with values: {listing(named)}; templates: {listing(templates, 20)}. Pass "
            "fields={'cell_type': '<column>', …}."
        )
    names = [key_added, *(f"{key_added}_{i}" for i in range(2, len(columns) + 1))]
    out = {name: pd.Categorical(column) for name, column in zip(names, columns, strict=True)}
    out[f"{key_added}_origin"] = pd.Categorical(origin, categories=["free", "templated"])
    frame = pd.DataFrame(out, index=obs.index)
    if not inplace:
        return frame
    fraction = {kind: origin.count(kind) / max(len(origin), 1) for kind in ("free", "templated")}
    parameters = {
        "templates": list(templates),
        "fields": named,
        "random_state": random_state,
        "free_fraction": fraction["free"],
        "templated_fraction": fraction["templated"],
        "columns": names,
        **resolved,
    }
    earlier = (recorded(slide.table, key_added) or {}).get("columns")
    gone = tuple(str(name) for name in earlier if name not in out) if isinstance(earlier, list) else ()
    slide.put(Result(key_added, parameters, obs=out, gone=gone))
    return None


def _fields_of(template: str) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(template) if name]


def _columns(
    obs: pd.DataFrame, templates: Sequence[str], fields: Mapping[str, str] | None, free_key: str | None
) -> dict[str, str]:
    """Field of a template to column of ``.obs``, for the columns that are there."""
    if bad := [t for t in templates if not _fields_of(t)]:
        raise ValueError(f"A template must name a field in braces, such as '{{cell_type}}'; found {bad[0]!r}.")
    given = dict(fields or {})
    if absent := [c for c in [*given.values(), *([free_key] if free_key else [])] if c not in obs]:
        raise KeyError(f"{listing(absent)} is not in .obs (found: {listing(obs.columns, 40)}).")
    wanted = dict.fromkeys(name for template in templates for name in _fields_of(template))
    found = {name: given.get(name, name) for name in wanted}
    return {name: column for name, column in found.items() if column in obs}


def _read(given: Ontology | str | Path | Sequence[Ontology | str | Path]) -> list[Ontology]:
    several = [given] if isinstance(given, Ontology | str | Path) else list(given)
    return [one if isinstance(one, Ontology) else Ontology.read(one) for one in several]


def _stated(obs: pd.DataFrame, column: str, of_disease: bool) -> list[Stated | None]:
    """What each row states in a column; ``None`` where it states nothing."""
    ids = _ID.format(column)
    values = [_several(value) for value in obs[column].astype(object)]
    terms = [_several(term) for term in obs[ids].astype(object)] if ids in obs else values
    pairs = [_pairs(own, its) for own, its in zip(values, terms, strict=True)]
    return [(_of_disease(own) if of_disease else own) or None for own in pairs]


def _several(cell: Any) -> list[str]:
    """The values of a cell; empty text where one is not stated."""
    parts = [part.strip() for part in _text(cell).split(_BETWEEN)]
    return ["" if reads_missing(part) or part.casefold() == _UNKNOWN else part for part in parts]


def _pairs(values: Sequence[str], terms: Sequence[str]) -> Stated:
    """Each value with its id. Where their numbers differ, nothing says which id is whose."""
    own = terms if len(terms) == len(values) else [""] * len(values)
    pairs = [(value, term or value) for value, term in zip(values, own, strict=True) if value]
    return tuple(dict.fromkeys(pairs))


def _of_disease(pairs: Stated) -> Stated:
    """The diseases among the values, or that there is none: nobody is healthy beside a disease."""
    return tuple(pair for pair in pairs if not _healthy(pair)) or pairs[:1]


def _healthy(pair: Value) -> bool:
    return not _HEALTHY.isdisjoint(text.casefold() for text in pair)


def _text(value: Any) -> str:
    text = "" if pd.isna(value) else group_name(value).strip()
    return "" if reads_missing(plain_text(text)) else text


def _words(
    stated: Mapping[str, Sequence[Stated | None]], diseases: Collection[str], ontologies: Sequence[Ontology]
) -> tuple[dict[tuple[str, Value], tuple[str, ...]], dict[str, int]]:
    """Name and synonyms of each value that a column states, and how many values the ontologies know."""
    words: dict[tuple[str, Value], tuple[str, ...]] = {}
    unknown: list[str] = []
    for column, rows in stated.items():
        for pair in dict.fromkeys(pair for pairs in rows for pair in pairs or ()):
            if column in diseases and _healthy(pair):
                words[column, pair] = (_NO_DISEASE,)
                continue
            found = _term(pair, ontologies)
            if found is None:
                unknown.append(pair[0])
            words[column, pair] = found or (pair[0],)
    if ontologies and unknown:
        warn(f"{len(unknown)} of {len(words)} values are in no ontology and stay as they are: {listing(unknown, 5)}.")
    return words, {"values": len(words), "values_in_ontologies": len(words) - len(unknown)}


def _term(stated: Value, ontologies: Sequence[Ontology]) -> tuple[str, ...] | None:
    value, term = stated
    # an id means one thing; a value may be the name of something else in another ontology
    for label in (term, value):
        for ontology in ontologies:
            if (found := ontology.find(label)) is not None:
                known = ontology.terms[found]
                return (known.name, *known.synonyms)
    return None


def _captions(
    stated: Mapping[str, Sequence[Stated | None]],
    columns: Mapping[str, str],
    words: Mapping[tuple[str, Value], tuple[str, ...]],
    templates: Sequence[str],
    wordings: int,
    seed: int,
) -> list[list[str]]:
    """Captions of each row; rows with equal metadata have the same."""
    known: dict[tuple[Stated | None, ...], list[str]] = {}
    out = []
    for row in zip(*stated.values(), strict=True):
        if row not in known:
            own = {column: pairs for column, pairs in zip(stated, row, strict=True) if pairs is not None}
            values = sorted(f"{column}={_BETWEEN.join(value for value, _ in pairs)}" for column, pairs in own.items())
            named = {name: [words[c, pair] for pair in own[c]] for name, c in columns.items() if c in own}
            known[row] = _wordings(named, templates, wordings, f"{seed}|{'|'.join(values)}")
        out.append(known[row])
    return out


def _wordings(
    words: Mapping[str, Sequence[tuple[str, ...]]], templates: Sequence[str], wordings: int, key: str
) -> list[str]:
    """Captions of one set of metadata, of which each field has one value or several."""
    fitting = sorted((t for t in templates if set(_fields_of(t)) <= words.keys()), key=lambda t: -len(_fields_of(t)))
    if not fitting:
        return []
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big"))
    out: list[str] = []
    for attempt in range(10 * wordings):
        template = fitting[attempt % len(fitting)]
        chosen = {
            name: " and ".join(w[0] if not attempt else w[int(rng.integers(len(w)))] for w in values)
            for name, values in words.items()
        }
        caption = template.format(**{name: chosen[name] for name in _fields_of(template)})
        if caption not in out:
            out.append(caption)
        if len(out) == wordings:
            break
    return out


def _with_free(
    obs: pd.DataFrame, captions: Sequence[Sequence[str]], free_key: str | None, wordings: int
) -> tuple[list[list[str | None]], list[str | None]]:
    """Captions column by column, and where each row has its captions from."""
    columns: list[list[str | None]] = [[] for _ in range(wordings)]
    origin: list[str | None] = []
    free = [None] * len(captions) if free_key is None else obs[free_key].astype(object).tolist()
    for own, text in zip(captions, free, strict=True):
        written = _text(text)
        chosen = [written] if written else list(own)
        origin.append("free" if written else "templated" if chosen else None)
        for i, column in enumerate(columns):
            column.append(chosen[i] if i < len(chosen) else None)
    used = [column for column in columns if any(c is not None for c in column)]
    return used or columns[:1], origin
