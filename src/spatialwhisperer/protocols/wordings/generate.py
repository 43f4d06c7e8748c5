"""Wordings of the captions, from names, the Cell Ontology, the label map, marker signatures and templates."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer.protocols.wordings.concepts import CONCEPTS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

Kind = Literal["name", "template", "definition", "markers", "compound", "negation"]

ONTOLOGY = "cell_ontology_2022-09-15.tsv.gz"
LABEL_MAP = "label_map.tsv"
FILES = (
    f"text/{ONTOLOGY}",
    f"text/{LABEL_MAP}",
    "text/signatures_breast_starfysh.csv",
    "her2st/markers/core_signatures.tsv",
    "her2st/markers/tls_signature.tsv",
)
"""Files that wordings are made from."""

_STUDIES = ("her2st.", "wu2021.")

TEMPLATES = ("a tissue section with {}", "a region of {}", "{} in the breast", "H&E image of {}")
NEGATIONS = (
    "no {}",
    "without {}",
    "absence of {}",
    "tissue without {}",
    "free of {}",
    "negative for {}",
    "{} is absent",
)
COMPOUNDS = ("{} without {}", "{}, no {}", "{} but no {}")
N_NEGATIONS = 2
"""Templates that each name is put into, in turn: one of `TEMPLATES`, one of `COMPOUNDS` and so many of `NEGATIONS`."""


@dataclass(frozen=True)
class Wording:
    """A text and what it says.

    Attributes
    ----------
    text
        The text.
    kind
        Where it comes from.
    concept
        Concept that it states, or negates ("negation").
    bases
        Names that it is built from. A name that is left out takes with it everything that is built from it.
    """

    text: str
    kind: Kind
    concept: str
    bases: tuple[str, ...] = ()

    @property
    def captions(self) -> tuple[str, ...]:
        """Captions that it states or negates."""
        return CONCEPTS[self.concept].captions

    @property
    def target(self) -> str | None:
        """Class that is scored; ``None`` where it names a part of one."""
        return CONCEPTS[self.concept].target


def check_files(data: Path) -> None:
    """Refuse a folder that lacks a file.

    Raises
    ------
    FileNotFoundError
        If one of `FILES` is not there.
    """
    for name in FILES:
        if not (data / name).is_file():
            raise FileNotFoundError(f"{data / name} is not there. Pass the folder that holds {name}.")


def make_wordings(data: Path) -> list[Wording]:
    """All wordings, each text once, those of a concept together and what is built from a name next to it.

    Parameters
    ----------
    data
        Folder that holds the files of `FILES`.
    """
    check_files(data)
    made = [*_built(_names(data)), *_definitions(data), *_markers(data)]
    made += [Wording(t, "negation", c) for c, concept in CONCEPTS.items() for t in concept.absent]
    order = list(CONCEPTS)
    made.sort(key=lambda w: order.index(w.concept))
    # a text of two concepts is a wording of both
    return list({(w.text.casefold(), w.concept, w.kind == "negation"): w for w in reversed(made)}.values())[::-1]


def left_out(words: Sequence[Wording], names: Collection[str]) -> list[Wording]:
    """Wordings without some names and everything that is built from them."""
    out = {name.casefold() for name in names}
    return [w for w in words if not out & {b.casefold() for b in (w.text, *w.bases)}]


def without_captions(words: Sequence[Wording], captions: Collection[str]) -> list[Wording]:
    """Wordings whose concept has none of some captions."""
    return [w for w in words if not set(w.captions) & set(captions)]


def text_options(words: Sequence[Wording], captions: Collection[str]) -> dict[str, Any]:
    """``wordings`` and ``negated`` of :class:`spatialwhisperer.tl.TextFeatures`, for the captions that the data have."""
    out: dict[str, dict[str, list[str]]] = {"wordings": {}, "negated": {}}
    for word in words:
        for caption in word.captions:
            if caption in captions and word.text != caption:
                part = out["negated" if word.kind == "negation" else "wordings"]
                part.setdefault(caption, []).append(word.text)
    return out


def _names(data: Path) -> dict[str, list[str]]:
    """Concept to its names: those by hand, then names and synonyms of its terms, then those of the label map."""
    ontology = sw.models.Ontology.read(data / "text" / ONTOLOGY)
    names = {c: list(concept.names) for c, concept in CONCEPTS.items()}
    of_term = {term: c for c, concept in CONCEPTS.items() for term in concept.terms}
    for term, c in of_term.items():
        entry = ontology.terms[term]
        names[c] += [entry.name, *entry.synonyms]
    known = pd.read_csv(data / "text" / LABEL_MAP, sep="\t", dtype=str).dropna(subset=["cl_id", "text"])
    known = known[known["dataset"].str.startswith(_STUDIES)]
    for term, *texts in known[["cl_id", "cl_name", "text"]].astype(str).to_numpy().tolist():
        # the nearest concept: a macrophage is a leukocyte too
        nearest = next((of_term[i] for i in (term, *ontology.ancestors(term)) if i in of_term), None)
        if nearest is not None:
            names[nearest] += texts
    captions = {text.casefold() for concept in CONCEPTS.values() for text in concept.captions}
    return {c: [n for n in _each_once(found) if n.casefold() not in captions] for c, found in names.items()}


def _built(names: dict[str, list[str]]) -> Iterator[Wording]:
    """Names, and names in templates; the templates take turns."""
    turn, no, both = cycle(TEMPLATES), cycle(NEGATIONS), cycle(COMPOUNDS)
    flat = [(c, name) for c, found in names.items() for name in found]
    for number, (c, name) in enumerate(flat):
        yield Wording(name, "name", c)
        yield Wording(next(turn).replace("{}", name), "template", c, (name,))
        for template in islice(no, N_NEGATIONS):
            yield Wording(template.replace("{}", name), "negation", c, (name,))
        other = _other(flat, number)
        yield Wording(next(both).format(name, other), "compound", c, (name, other))


def _other(flat: Sequence[tuple[str, str]], number: int) -> str:
    """The name of another class that is said not to be there: one far down the list, so that many meet many."""
    mine = CONCEPTS[flat[number][0]]
    for step in range(len(flat)):
        c, name = flat[(number * 7 + 31 + step) % len(flat)]
        if CONCEPTS[c].target != mine.target and not set(CONCEPTS[c].captions) & set(mine.captions):
            return name
    raise ValueError("A compound needs names of two classes.")


def _definitions(data: Path) -> Iterator[Wording]:
    """First sentence of the definition of each term."""
    ontology = sw.models.Ontology.read(data / "text" / ONTOLOGY)
    for c, concept in CONCEPTS.items():
        for term in concept.terms:
            entry = ontology.terms[term]
            if entry.definition:
                yield Wording(entry.definition.split(". ")[0].rstrip("."), "definition", c, (entry.name,))


def _markers(data: Path) -> Iterator[Wording]:
    """The first genes of each signature, in threes."""
    columns = pd.concat(
        [
            pd.read_csv(data / "text" / "signatures_breast_starfysh.csv"),
            pd.read_csv(data / "her2st" / "markers" / "core_signatures.tsv", sep="\t"),
            pd.read_csv(data / "her2st" / "markers" / "tls_signature.tsv", sep="\t")["gene"].rename("tls_signature"),
        ],
        axis=1,
    )
    for c, concept in CONCEPTS.items():
        for signature in concept.signatures:
            genes = _each_once(columns[signature].dropna().astype(str))
            for a, b, last in (genes[i : i + 3] for i in (0, 3) if len(genes) >= i + 3):
                yield Wording(f"expression of {a}, {b} and {last}", "markers", c)


def _each_once(texts: Any) -> list[str]:
    """Texts in order, those that differ in case alone once."""
    return list({text.casefold(): text for text in reversed(list(texts))}.values())[::-1]
