"""Which species the gene identifiers of a table are of."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_ENSEMBL = re.compile(r"ENS([A-Z]*)G\d{11}(\.\d+)?$")
_GENOME = re.compile(r"(grch3\d|hg19|hg38|grcm3\d|mm10|mm39|rnor\w*)[_-]+", re.IGNORECASE)
_SYMBOL = re.compile(r"[A-Za-z]{2}[A-Za-z0-9.-]+$")
_NAMES = {"": "human", "MUS": "mouse", "RNO": "rat"}
_GENOMES = {"grch": "human", "grcm": "mouse", "hg": "human", "mm": "mouse", "rn": "rat"}
_FEWEST, _MOST_OF, _STRAY = 50, 0.8, 0.01


def species_of(names: Iterable[str]) -> set[str]:
    """Species of gene identifiers; empty where the identifiers do not tell.

    Ensembl ids and prefixes of genomes name it. Symbols do by their case: those of human genes are upper case, those of mouse and rat
    begin with a capital. Fewer than 50 symbols do not tell. A species of less than 1 % of the ids is a stray one.

    Parameters
    ----------
    names
        Identifiers.
    """
    names = [str(name) for name in names]
    stated = [found for name in names if (found := _stated(name))]
    if stated:
        return {s for s in set(stated) if stated.count(s) > _STRAY * len(names)}
    symbols = [name for name in names if _SYMBOL.match(name)]
    if len(symbols) < _FEWEST:
        return set()
    upper = sum(name == name.upper() for name in symbols) / len(symbols)
    capital = sum(name[0].isupper() and name[1:] == name[1:].lower() for name in symbols) / len(symbols)
    return {"human"} if upper >= _MOST_OF else {"mouse or rat"} if capital >= _MOST_OF else set()


def _stated(name: str) -> str | None:
    if match := _ENSEMBL.match(name):
        return _NAMES.get(match[1], f"ENS{match[1]}")
    if match := _GENOME.match(name):
        genome = match[1].lower()
        return next(species for start, species in _GENOMES.items() if genome.startswith(start))
    return None


def check_one_species(found: Mapping[str, set[str]]) -> None:
    """Refuse slides whose genes are of different species.

    Parameters
    ----------
    found
        Name of a slide to the species of its genes.

    Raises
    ------
    ValueError
        If there are two; the text names slides of each.
    """
    by_species: dict[str, list[str]] = {}
    for slide, species in found.items():
        for one in species:
            by_species.setdefault(one, []).append(slide)
    rodent = {"mouse", "rat"} & by_species.keys()
    if "mouse or rat" in by_species and rodent:
        by_species.setdefault(min(rodent), []).extend(by_species.pop("mouse or rat"))
    if len(by_species) > 1:
        shown = "; ".join(f"{species}: {listing(slides, 3)}" for species, slides in sorted(by_species.items()))
        raise ValueError(
            f"Gene identifiers of two species ({shown}). A gene encoder would take the genes of one for those of the other: build one "
            "corpus for each species, or map the genes to their orthologues first."
        )
