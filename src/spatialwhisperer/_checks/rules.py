"""The rule of each argument that several functions have."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from spatialwhisperer._annotations import iterated
from spatialwhisperer._checks.values import (
    check_batch_size,
    check_colour_map,
    check_device,
    check_flag,
    check_key_added,
    check_number,
    check_path,
    check_seed,
    check_text,
    check_texts,
    check_tile_px,
    check_whole,
    positive,
)

Rule = Callable[[str, Any], None]

_MOST_REPEATS = 1_000_000


def _optional(rule: Rule) -> Rule:
    def check(name: str, value: Any) -> None:
        if value is not None:
            rule(name, value)

    return check


def _one_size(name: str, value: Any) -> None:
    positive(name, value)


def _sizes(name: str, value: Any) -> None:
    """One size or several."""
    several = None if isinstance(value, str) else iterated(value)
    for one in [value] if several is None else several:
        positive(name, one)


def _own_words(name: str, value: Any) -> None:
    """Nothing: the function checks it."""


_whole = _optional(check_whole)
_path = _optional(check_path)
_repeats = _optional(partial(check_whole, most=_MOST_REPEATS))
_text = _optional(check_text)
_size = _optional(_one_size)

RULES: dict[str, Rule] = {
    "batch_size": lambda _, value: check_batch_size(value),
    "device": lambda _, value: check_device(value),
    "key_added": lambda _, value: check_key_added(value),
    "random_state": check_seed,
    # numbers of things
    "k": _whole,
    "n": check_whole,
    "n_shots": _whole,
    "n_top_genes": _whole,
    "n_pcs": _whole,
    "n_latent": check_whole,
    "n_neighbors": check_whole,
    "n_top": check_whole,
    "n_genes": check_whole,
    "n_columns": check_whole,
    "max_rows": check_whole,
    "max_epochs": _whole,
    "min_genes": check_whole,
    "min_rows": partial(check_whole, least=0),
    "min_spots": partial(check_whole, least=0),
    "n_domains": _optional(partial(check_whole, least=2)),
    # how often something is done: a number that is a thousand times too large would run for days
    "n_bins": _repeats,
    "n_init": _repeats,
    "n_seeds": _repeats,
    # sizes and limits
    "tile_px": check_tile_px,
    "tile_um": _optional(_sizes),
    "stride_um": _size,
    "diameter_um": _size,
    "alpha": partial(check_number, least=0, most=1),
    "min_tissue": partial(check_number, least=0, most=1),
    "ridge": _optional(partial(check_number, least=0)),
    "threshold": check_number,
    "cmap": check_colour_map,
    # names
    "batch_key": _text,
    "embedding_key": _text,
    "gene_ids_key": _text,
    "group_key": _text,
    "labels_key": _text,
    "layer": _text,
    "modality": _text,
    "patient_key": _text,
    "scalar_key": _text,
    "section": _text,
    "section_key": _text,
    "shapes_key": _text,
    "table_key": _text,
    "value_space": _text,
    "embedding": check_texts,
    "embeddings": check_texts,
    "ignore": check_texts,
    "key": check_texts,
    "use": check_texts,
    "genes": _optional(check_texts),
    "classes": _optional(check_texts),
    "sections": _optional(check_texts),
    # the functions say in words of their own what these may be
    **dict.fromkeys(("labels", "model", "text", "texts"), _own_words),
    # files
    "data_dir": _path,
    "folder": _path,
    "path": check_path,
    # switches
    "inplace": check_flag,
    "with_image": check_flag,
    "confidence": check_flag,
    "per_gene": check_flag,
    "per_group": check_flag,
    "baselines": check_flag,
    "allow_overlap": check_flag,
    "per_section": check_flag,
    "intervals": check_flag,
}
