"""What is checked of all slides before the first one is embedded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.table.counts import names_and_ids
from spatialwhisperer._access.table.groups import group_names
from spatialwhisperer._access.tables import obs_of
from spatialwhisperer._messages import listing, progress
from spatialwhisperer.pp.corpus.embedding import captions_of, check_text_keys, has_genes, has_image
from spatialwhisperer.pp.corpus.licences import shareable
from spatialwhisperer.pp.corpus.species import check_one_species, species_of
from spatialwhisperer.pp.corpus.stamps import stamps_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from anndata import AnnData

    from spatialwhisperer.pp.corpus.embedding import Encoders
    from spatialwhisperer.pp.corpus.sources import CorpusSource
    from spatialwhisperer.training.corpus.manifest import CorpusFeature, Manifest


@dataclass(frozen=True)
class Found:
    """What is known of a slide before it is embedded.

    Attributes
    ----------
    stamps
        Digests of its rows and modalities; see `stamps_of`.
    species
        Species of its genes; empty where it has none, or their identifiers do not tell.
    features
        How its features are made.
    holds
        Modalities that it holds.
    """

    stamps: dict[str, str]
    species: set[str]
    features: dict[str, CorpusFeature]
    holds: set[str]


def look_at(sources: Sequence[CorpusSource], encoders: Encoders) -> dict[tuple[str, str], Found]:
    """Look at every slide of every source; nothing is computed.

    Raises
    ------
    KeyError
        If a source has no column with the patient, or no captions where they are named.
    ValueError
        If a row has no patient, slides hold fewer than two modalities, or their genes are of two species.
    """
    names = list(slides_of(sources))
    found = {}
    for source, name in progress(names, total=len(names), desc="checking", unit="slide"):
        try:
            found[source.name, name] = _look(source, name, encoders)
        except Exception as error:
            error.add_note(f"This was found in {_what(source.name, name)}.")
            raise
    check_one_species({_what(*key): one.species for key, one in found.items() if one.species})
    if not any(len(one.holds) > 1 for one in found.values()):
        held = "; ".join(f"{_what(*key)}: {listing(sorted(one.holds))}" for key, one in list(found.items())[:5])
        raise ValueError(
            f"No slide holds two of the modalities that are asked for, so there is no pair to train on ({held}). Captions are read from "
            ".obs (CorpusSource(text_key=…)), counts from .X (gene=sw.tl.GeneFeatures(layer=…)), images from the object."
        )
    return found


def slides_of(sources: Sequence[CorpusSource]) -> Iterator[tuple[CorpusSource, str]]:
    """Every slide of every source."""
    for source in sources:
        for name in source.names:
            yield source, name


def _look(source: CorpusSource, name: str, encoders: Encoders) -> Found:
    what = _what(source.name, name)
    slide = Slide.open(source.peek(name), **source.options)
    table = slide.table
    _check_patients(table, source, what)
    texts, codes = captions_of(table, source.text_keys) if encoders.text is not None else ([], None)
    if encoders.text is not None:
        check_text_keys(table, source.text_keys, what)
    holds = {"image"} if encoders.image is not None and has_image(slide, encoders.image) else set()
    if encoders.image is not None and encoders.image.key is None and not holds:
        slide.say_left_out()
    holds |= {"gene"} if encoders.gene is not None and has_genes(table, encoders.gene) else set()
    holds |= {"text"} if texts else set()
    species: set[str] = set()
    if "gene" in holds and encoders.gene is not None and encoders.gene.key is None:
        species = _species(table)
    patients = group_names(obs_of(table)[source.patient_key])
    features = encoders.features(slide)
    return Found(stamps_of(slide, patients, encoders, holds, (texts, codes)), species, features, holds)


def _check_patients(table: AnnData, source: CorpusSource, what: str) -> None:
    key = source.patient_key
    if key not in table.obs:
        raise KeyError(
            f"Source {source.name!r} has no patient column: {key!r} is not in .obs of {what} (found: {listing(table.obs.columns)}). Without "
            "it, rows of one patient would be trained on and validated on. Name the column with CorpusSource(patient_key=…)."
        )
    column = table.obs[key]
    if missing := int(column.isna().sum() + (column.astype(str).str.strip() == "").sum()):
        raise ValueError(
            f"{missing} rows of {what} have no patient in .obs[{key!r}]. Fill the column, or leave the rows out."
        )


def _species(table: AnnData) -> set[str]:
    names, ids = names_and_ids(table)
    stated = [i for i in ids if i]
    return species_of(stated) or species_of(names)


def check_licences(
    sources: Sequence[CorpusSource], features: Mapping[str, CorpusFeature], there: Manifest | None
) -> None:
    """Refuse what may not be passed on.

    Raises
    ------
    ValueError
        If the licence of a source or of an encoder does not allow it; the text names each.
    """
    wrong = [f"source {s.name!r} ({s.licence})" for s in sources if not s.may_be_shared]
    if there is not None:
        own = {s.name for s in sources}
        wrong += [f"source {n!r} ({r.licence})" for n, r in there.sources.items() if not r.shareable and n not in own]
    wrong += [
        f"{modality} encoder {feature.recipe.name!r} ({feature.licence})"
        for modality, feature in features.items()
        if feature.licence and feature.recipe.encoder is not None and not shareable(feature.licence)
    ]
    if wrong:
        raise ValueError(
            f"shared=True, and these licences do not allow that features are passed on, as far as is known: {listing(wrong)}. Leave them "
            "out, keep the corpus to yourself (shared=False), or state a permission that you have with CorpusSource(shareable=True)."
        )


def one_recipe(found: Mapping[Any, Found]) -> dict[str, CorpusFeature]:
    """How the features of all slides are made.

    Raises
    ------
    ValueError
        If slides state different tile sizes.
    """
    out: dict[str, CorpusFeature] = {}
    for (source, name), one in found.items():
        for modality, feature in one.features.items():
            earlier = out.setdefault(modality, feature)
            if not earlier.dim and feature.dim:
                out[modality] = earlier = replace(earlier, dim=feature.dim)
            if feature.dim not in (0, earlier.dim):
                raise ValueError(
                    f"The {modality} features of {_what(source, name)} have {feature.dim} columns, and those of the slides before "
                    f"{earlier.dim}."
                )
            if earlier.recipe != feature.recipe:
                raise ValueError(
                    f"The {modality} features of {_what(source, name)} would be made otherwise than those of the slides before: "
                    f"{feature.recipe} and {earlier.recipe}. State tile_um=… and tile_px=… in image=sw.tl.ImageFeatures(…)."
                )
    return out


def _what(source: str, name: str) -> str:
    return source if source == name else f"{source}/{name}"
