"""Ontologies such as the Cell Ontology: terms with names and synonyms, and which term is a kind of which."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections import deque
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialwhisperer._checks.checked import checked
from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_BETWEEN = re.compile(r"[-‐‑–_\s]+")

_COLUMNS = ("cl_id", "name", "definition", "exact_synonyms", "parents")
_KINDS = (".obo", ".obo.gz", ".tsv", ".tsv.gz")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"\s*(\w*)')
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True)
class Term:
    """One term of an ontology.

    Attributes
    ----------
    id
        Such as "CL:0000084".
    name
        Such as "T cell".
    synonyms
        Exact synonyms.
    parents
        Ids of the terms that this one is a kind of.
    definition
        Definition, in a sentence.
    """

    id: str
    name: str
    synonyms: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    definition: str = ""


class Ontology:
    """Terms of an ontology and their "is a" relations.

    Parents that are not among the terms are ignored, so that some terms of an ontology are an ontology too.

    Parameters
    ----------
    terms
        The terms, each id once.

    Attributes
    ----------
    terms
        Term by id, in the order given.

    Raises
    ------
    ValueError
        If an id repeats or is empty.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> cell = sw.models.Term("CL:0000000", "cell")
    >>> lymphocyte = sw.models.Term("CL:0000542", "lymphocyte", parents=("CL:0000000",))
    >>> t_cell = sw.models.Term("CL:0000084", "T cell", ("T lymphocyte", "T-cell"), ("CL:0000542",))
    >>> ontology = sw.models.Ontology([cell, lymphocyte, t_cell])
    >>> ontology.find("T-lymphocytes")
    'CL:0000084'
    >>> [ontology.name(i) for i in ontology.ancestors("CL:0000084")]
    ['lymphocyte', 'cell']
    """

    @checked
    def __init__(self, terms: Iterable[Term]) -> None:
        self.terms: dict[str, Term] = {}
        for term in terms:
            if not isinstance(term, Term):
                raise TypeError(f"terms must be terms (sw.models.Term), not {term!r}.")
            if not term.id:
                raise ValueError(f"A term has no id ({term.name!r}); every term needs one.")
            if term.id in self.terms:
                raise ValueError(f"{term.id} is there twice: {self.terms[term.id].name!r} and {term.name!r}.")
            self.terms[term.id] = term
        self._index = self._make_index()

    @classmethod
    @checked
    def read(cls, path: str | Path) -> Ontology:
        """Read an ontology from a file.

        Parameters
        ----------
        path
            ``.obo`` as published at https://obofoundry.org (obsolete terms are left out, exact synonyms alone are read; a term that is
            defined as another one with a property, in ``intersection_of``, is a kind of that one), or
            ``.tsv`` with the columns cl_id, name, definition, exact_synonyms and parents, the last two separated by ``|``.
            Either may be compressed (``.gz``).

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is of another kind, cannot be read, or holds no term; the text says what was found.
        """
        path = Path(path).expanduser()
        if not os.path.isfile(path):
            raise FileNotFoundError(f"There is no file {path} to read an ontology from.")
        kind = next((k for k in _KINDS if path.name.lower().endswith(k)), None)
        if kind is None:
            raise ValueError(
                f"{path.name} is not a file of a known kind ({', '.join(_KINDS)}). Ontologies are published as .obo too: "
                "http://purl.obolibrary.org/obo/cl.obo"
            )
        text = _text(path)
        terms = list(_obo_terms(text) if kind.startswith(".obo") else _tsv_terms(text, path))
        if not terms:
            first = text.strip().splitlines()[0][:80] if text.strip() else "nothing"
            raise ValueError(f"{path} holds no term; the file starts with {first!r}. Download it again.")
        try:
            return cls(terms)
        except ValueError as error:
            raise ValueError(f"{path} is not one ontology: {error}") from error

    @checked
    def find(self, label: str) -> str | None:
        """Find the id of a label; ``None`` where no term has that name, or several have it.

        Parameters
        ----------
        label
            An id, a name or an exact synonym. Case, hyphens, underscores and a plural do not matter. Ids are searched before names,
            and names before synonyms.
        """
        exact = self._index["id"].get(label.strip().casefold().replace("_", ":"))
        if exact:
            return exact
        word = _plain(label)
        names = self._index["name"]
        return (names if word in names else self._index["synonym"]).get(word) or None

    @checked
    def name(self, term: str) -> str:
        """Name of an id."""
        return self._term(term).name

    @checked
    def ancestors(self, term: str) -> list[str]:
        """Ids of all terms that a term is a kind of, the nearest first, without the term itself."""
        seen, queue = {term: None}, deque(self._term(term).parents)
        while queue:
            parent = queue.popleft()
            if parent in self.terms and parent not in seen:
                seen[parent] = None
                queue.extend(self.terms[parent].parents)
        return list(seen)[1:]

    @checked
    def is_a(self, term: str, ancestor: str) -> bool:
        """Whether a term is the other one or a kind of it."""
        self._term(ancestor)
        return term == ancestor or ancestor in self.ancestors(term)

    @checked
    def subset(self, terms: Iterable[str]) -> Ontology:
        """The ontology of some ids and all their ancestors, in the order of this one."""
        keep = {i for term in terms for i in (term, *self.ancestors(term))}
        return Ontology(t for i, t in self.terms.items() if i in keep)

    @checked
    def with_parents(self, parents: Mapping[str, Sequence[str]]) -> Ontology:
        """The ontology with more "is a" relations, such as those that a reasoner finds in logical definitions.

        Parameters
        ----------
        parents
            Ids of the additional parents of a term, by its id.

        Raises
        ------
        KeyError
            If a term or a parent is not in the ontology.
        ValueError
            If a parent is a kind of the term, also by a relation that is added.

        Examples
        --------
        >>> import spatialwhisperer as sw
        >>> terms = [
        ...     sw.models.Term("CL:0000066", "epithelial cell"),
        ...     sw.models.Term("CL:0002327", "breast epithelial cell"),
        ... ]
        >>> reasoned = sw.models.Ontology(terms).with_parents({"CL:0002327": ["CL:0000066"]})
        >>> reasoned.is_a("CL:0002327", "CL:0000066")
        True
        """
        out = Ontology(self.terms.values())
        for term, more in parents.items():
            self._term(term)
            for parent in more:
                # asked of the ontology with the relations added so far, among which a cycle could close
                if out.is_a(parent, term):
                    raise ValueError(f"{self.name(parent)!r} is a kind of {self.name(term)!r}, and cannot be above it.")
                own = out.terms[term]
                out.terms[term] = replace(own, parents=tuple(dict.fromkeys((*own.parents, parent))))
        return out

    def to_json(self) -> dict[str, Any]:
        """Plain values that `from_json` takes."""
        return {"terms": [asdict(t) for t in self.terms.values()]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Ontology:
        """The ontology that `to_json` described.

        Raises
        ------
        ValueError
            If the values do not describe one.
        """
        try:
            return cls(
                Term(t["id"], t["name"], tuple(t["synonyms"]), tuple(t["parents"]), t["definition"])
                for t in values["terms"]
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"These values do not describe an ontology ({error!r}).") from error

    def __len__(self) -> int:
        return len(self.terms)

    def __contains__(self, term: object) -> bool:
        return term in self.terms

    def __repr__(self) -> str:
        return f"Ontology({len(self.terms)} terms: {listing((t.name for t in self.terms.values()), 3)})"

    def _term(self, term: str) -> Term:
        if term not in self.terms:
            raise KeyError(
                f"{term!r} is not an id of this ontology of {len(self.terms)} terms (such as {listing(self.terms, 3)}). "
                "ontology.find(label) gives the id of a name."
            )
        return self.terms[term]

    def _make_index(self) -> dict[str, dict[str, str]]:
        names: dict[str, set[str]] = {}
        synonyms: dict[str, set[str]] = {}
        for i, term in self.terms.items():
            names.setdefault(_plain(term.name), set()).add(i)
            for synonym in term.synonyms:
                synonyms.setdefault(_plain(synonym), set()).add(i)
        # a name of two terms is ambiguous, and stands for neither
        single = [{word: next(iter(i)) if len(i) == 1 else "" for word, i in d.items()} for d in (names, synonyms)]
        return {"id": {i.casefold(): i for i in self.terms}, "name": single[0], "synonym": single[1]}


def _plain(label: str) -> str:
    """A label without case, hyphens, underscores and plural, so that different spellings meet."""
    return " ".join(_singular(w) for w in _BETWEEN.sub(" ", label.casefold()).split())


def _singular(word: str) -> str:
    if len(word) > 3 and word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if len(word) > 2 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.name.lower().endswith(".gz") else raw).decode("utf-8-sig")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file ({error}). Download it again.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}). Download it again.") from error


def _tsv_terms(text: str, path: Path) -> Iterator[Term]:
    lines = text.splitlines()
    header = lines[0].split("\t") if lines else []
    missing = [c for c in _COLUMNS if c not in header]
    if missing:
        raise ValueError(f"{path} lacks the columns {listing(missing)} (found: {listing(header)}).")
    where = [header.index(c) for c in _COLUMNS]
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) != len(header):
            raise ValueError(f"{path} has {len(cells)} columns in line {number}, and {len(header)} in its first line.")
        term, name, definition, synonyms, parents = (cells[i] for i in where)
        yield Term(term, name or term, _parts(synonyms), _parts(parents), definition)


def _parts(cell: str) -> tuple[str, ...]:
    return tuple(p.strip() for p in cell.split("|") if p.strip())


def _obo_terms(text: str) -> Iterator[Term]:
    """Terms of an OBO 1.4 file; https://owlcollab.github.io/oboformat/doc/obo-syntax.html."""
    for stanza in re.split(r"(?m)^(?=\[)", text):
        if not stanza.startswith("[Term]"):
            continue
        tags: dict[str, list[str]] = {}
        for line in stanza.splitlines()[1:]:
            tag, colon, value = line.partition(":")
            if colon and not line.startswith("!"):
                tags.setdefault(tag.strip(), []).append(value.strip())
        if "id" not in tags or any(v.startswith("true") for v in tags.get("is_obsolete", [])):
            continue
        term = _uncommented(tags["id"][0])
        quoted = [m for v in tags.get("synonym", []) if (m := _QUOTED.match(v))]
        definition = _QUOTED.match(tags.get("def", [""])[0])
        yield Term(
            term,
            _unescape(_uncommented(tags.get("name", [term])[0])),
            tuple(_unescape(m[1]) for m in quoted if m[2] == "EXACT"),
            tuple(dict.fromkeys(v.split()[0] for v in (*tags.get("is_a", []), *_genus(tags)) if v)),
            _unescape(definition[1]) if definition else "",
        )


def _genus(tags: Mapping[str, Sequence[str]]) -> list[str]:
    """Terms of a logical definition that stand without a relation: what is defined is a kind of them."""
    parts = [_uncommented(value) for value in tags.get("intersection_of", [])]
    return [part for part in parts if len(part.split()) == 1]


def _uncommented(value: str) -> str:
    return value.partition(" ! ")[0].strip()


def _unescape(value: str) -> str:
    return _ESCAPED.sub(lambda m: {"n": "\n", "t": "\t", "W": " "}.get(m[1], m[1]), value)
