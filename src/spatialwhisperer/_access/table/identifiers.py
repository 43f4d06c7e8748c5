"""Identifiers of genes: Ensembl ids and symbols, on strings alone."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_ENSEMBL = re.compile(r"(ENS[A-Z]*G\d{11})(\.\d+)?")
_SPECIES = re.compile(r"(ENS[A-Z]*G)\d{11}$")


def plain(identifier: Any) -> str:
    """Drop the version of an Ensembl id. Clone names such as FO538757.2 keep theirs, because it distinguishes genes."""
    text = str(identifier)
    # most names are no ids, and this is quicker than the pattern
    match = _ENSEMBL.fullmatch(text) if text.startswith("ENS") else None
    return match[1] if match else text


def species_part(identifier: str) -> str:
    """Return the part of a plain Ensembl id that tells the species; ``""`` for another identifier."""
    match = _SPECIES.match(identifier) if identifier.startswith("ENS") else None
    return match[1] if match else ""


def mostly_ensembl(values: Iterable[str]) -> bool:
    """Whether most values are Ensembl ids."""
    known = [v.startswith("ENS") and _ENSEMBL.fullmatch(v) is not None for v in values]
    return sum(known) > len(known) / 2


def free_names(names: Sequence[str], ids: Sequence[str], taken: Iterable[str]) -> list[str]:
    """Names that no other gene has: the id, or a number behind the name, where a name is taken."""
    used = set(taken) | set(names)
    seen, out = set(taken), []
    for name, known in zip(names, ids, strict=True):
        free = name
        if name in seen:
            others = (f"{name}-{i}" for i in range(1, len(used) + 2))
            free = known if known and known not in used else next(other for other in others if other not in used)
        seen.add(free)
        used.add(free)
        out.append(free)
    return out


def other_species(genes: Sequence[str], others: Sequence[str]) -> str:
    """Describe how gene names look like those of another species; ``""`` where they do not.

    Symbols of most mouse and rat genes differ from those of their human orthologs in case alone (Epcam, EPCAM), and Ensembl ids
    contain the species (ENSMUSG, ENSG).
    """
    ours, theirs = {plain(g) for g in genes if g}, {plain(g) for g in others if g}
    species = [
        Counter(found[1] for name in names if (found := _SPECIES.match(name))).most_common(1)
        for names in (ours, theirs)
    ]
    remedy = (
        "Map the table's genes to the model's species first (one-to-one orthologs, for example from Ensembl BioMart)."
    )
    if all(species) and species[0][0][0] != species[1][0][0]:
        (here, n), (there, m) = species[0][0], species[1][0]
        return (
            f"The genes look like those of another species: {m} of the table's Ensembl ids start with {there}, {n} of the "
            f"model's with {here}. {remedy}"
        )
    folded = {g.casefold(): g for g in theirs - ours}
    pairs = [(folded[g.casefold()], g) for g in sorted(ours - theirs) if g.casefold() in folded]
    same = len(ours & theirs)
    # a few names that differ in case alone occur within a species too
    if len(pairs) < 5 or len(pairs) <= same:
        return ""
    examples = ", ".join(f"{there} for {here}" for there, here in pairs[:3])
    return (
        f"The genes look like another species' symbols: {same} names are the same, and {same + len(pairs)} when upper and lower "
        f"case are taken as one ({examples}). {remedy} If it is the same species, give the table's genes their usual case."
    )
