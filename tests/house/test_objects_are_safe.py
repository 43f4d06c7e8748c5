"""A seeded campaign: whatever a call is given, it ends in a message of this package or in a result, and a failed call changes nothing."""

from __future__ import annotations

import hashlib
import inspect
import linecache
import random
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import spatialdata as sd

import spatialwhisperer as sw
from spatialwhisperer._checks import RULES

if TYPE_CHECKING:
    from collections.abc import Callable

    Damage = Callable[[Any], Any]

ROOT = str(Path(sw.__file__).parent)
OWN = (ValueError, KeyError, TypeError, FileNotFoundError)
LABELS = ["tumour", "fat"]
SEED, N_FAST, N_SLOW = 0, 50, 300

CALLS: dict[str, tuple[Any, dict[str, Any]]] = {
    "embed_genes": (sw.pp.embed_genes, {"encoder": "pca", "n_latent": 4, "n_top_genes": None}),
    "embed_images": (sw.pp.embed_images, {"tile_um": 80, "tile_px": 64}),
    "select_genes": (sw.pp.select_genes, {"n_top": 20}),
    "tiles": (sw.pp.tiles, {"tile_um": 80}),
    "tiles of a grid": (sw.pp.tiles, {"tile_um": 200, "at": "grid"}),
    "abstention_curve": (sw.tl.abstention_curve, {"truth": "truth"}),
    "batch_report": (sw.tl.batch_report, {"batch_key": "batch", "embedding": "X_sw_image", "k": 5}),
    "calibrate": (sw.tl.calibrate, {"truth": "truth", "labels": LABELS}),
    "classify": (sw.tl.classify, {"labels_key": "truth"}),
    "embed": (sw.tl.embed, {}),
    "evaluate_annotation": (sw.tl.evaluate_annotation, {"truth": "truth"}),
    "evaluate_calibration": (sw.tl.evaluate_calibration, {"truth": "truth"}),
    "evaluate_classes": (sw.tl.evaluate_classes, {"labels_key": "truth"}),
    "evaluate_domains": (sw.tl.evaluate_domains, {"truth": "truth", "use": "observed", "n_domains": 2, "n_seeds": 2}),
    "query": (sw.tl.query, {"text": "fat"}),
    "spatial_domains": (sw.tl.spatial_domains, {"n_domains": 2, "use": "X_sw_image", "smooth": 0.5}),
    "tissue_darkness": (sw.tl.tissue_darkness, {"tile_um": 80}),
    "top_labels": (sw.tl.top_labels, {"k": 2}),
    "zero_shot_annotate": (sw.tl.zero_shot_annotate, {"labels": LABELS}),
    "pl.annotation": (sw.pl.annotation, {}),
    "pl.confusion": (sw.pl.confusion, {"labels_key": "truth", "key": "sw_label"}),
    "pl.domains": (sw.pl.domains, {"key": "truth"}),
    "pl.reliability": (sw.pl.reliability, {"truth": "truth"}),
    "pl.roc": (sw.pl.roc, {"truth": "truth"}),
    "pl.scores": (sw.pl.scores, {}),
    "pl.top_tiles": (sw.pl.top_tiles, {"label": "fat"}),
}
WITH_MODEL = ("calibrate", "embed", "query", "zero_shot_annotate")

_NUMBERS = [float("nan"), float("inf"), -1, "8", True, 1e12, [1]]
_NAMES = ["misspelt", 7, ["a"]]
ARGUMENTS: dict[str, list[Any]] = {
    **dict.fromkeys(("k", "n_bins", "n_domains", "n_seeds", "n_top", "n_neighbors", "max_rows", "n_columns"), _NUMBERS),
    **dict.fromkeys(("alpha", "tile_um", "mpp", "spot_pitch_um", "diameter_um", "threshold", "smooth"), _NUMBERS),
    **dict.fromkeys(
        ("group_key", "batch_key", "labels_key", "layer", "table_key", "image_key", "coordinate_system"), _NAMES
    ),
    **dict.fromkeys(("use", "truth", "embedding_key", "library_key"), _NAMES),
    "batch_size": [0, True, "8", 2.5, float("nan")],
    "random_state": [-1, "a", 2**40, 1.5, True],
    "device": ["cuda:99", "gpu", "cpu:x", "", 7, "meta"],
    "key_added": ["..", "a/b", "a\0b", "a\nb", "x" * 300, "", "a:b", "a b", 7],
    "inplace": ["no", 1],
    "cmap": ["nope", 7],
}
SLIDE = ("table_key", "image_key", "coordinate_system", "library_key", "mpp", "spot_pitch_um")


# ------------------------------------------------------------------------------------------------- damaged objects


def attrs(name: str, value: Any) -> Damage:
    def change(data: Any) -> None:
        data["table"].uns["spatialdata_attrs"][name] = value

    return change


def affine(matrix: Any) -> Damage:
    def change(data: Any) -> None:
        from spatialdata.transformations import Affine, set_transformation

        for system in ("P1", "microns"):
            made = Affine(np.array(matrix, float), input_axes=("x", "y"), output_axes=("x", "y"))
            set_transformation(data.shapes["P1_spots"], made, system)

    return change


def pixels(made: Callable[[Any], Any]) -> Damage:
    def change(data: Any) -> None:
        from spatialdata.models import Image2DModel
        from spatialdata.transformations import get_transformation

        old = data.images["P1_image"]
        systems = get_transformation(old, get_all=True)
        new = made(old["scale0"]["image"].data)
        data.images["P1_image"] = Image2DModel.parse(new, dims=("c", "y", "x"), transformations=systems)

    return change


def failing(array: Any) -> Any:
    def damaged(_: Any) -> None:
        raise OSError("a chunk is damaged")

    import dask.array as da

    return da.map_blocks(damaged, array, dtype=array.dtype, meta=np.empty((0, 0, 0), array.dtype))


def in_obsm(made: Callable[[np.ndarray, Any], Any]) -> Damage:
    def change(data: Any) -> None:
        table = data["table"]
        for key in ("spatial", "X_sw_image", "X_stain_texture", "sw_label_scores"):
            table.obsm[key] = made(np.asarray(table.obsm[key]), table)

    return change


def in_obs(value: Any) -> Damage:
    def change(data: Any) -> None:
        table = data["table"]
        for key in ("truth", "batch", "patient", "sw_label"):
            table.obs[key] = pd.Series([value] * table.n_obs, index=table.obs_names, dtype=object)

    return change


def rows(n: int) -> Damage:
    def change(data: Any) -> None:
        table = data["table"][:n].copy()
        del data.tables["table"]
        data.tables["table"] = table

    return change


def named(names: Any) -> Damage:
    def change(data: Any) -> None:
        data["table"].obs_names = [str(names)] * data["table"].n_obs

    return change


def uns(value: Any) -> Damage:
    def change(data: Any) -> None:
        data["table"].uns["spatialwhisperer"] = value

    return change


def integer_columns(data: Any) -> None:
    data["table"].obs[0] = 1


def two_columns_of_one_name(data: Any) -> None:
    table = data["table"]
    table._obs = pd.concat([table.obs, table.obs[["truth"]]], axis=1)


DAMAGES: dict[str, Damage] = {
    "region_key": attrs("region_key", "nope"),
    "region_key None": attrs("region_key", None),
    "instance_key": attrs("instance_key", 7),
    "region": attrs("region", None),
    "flat": affine([[1, 1, 0], [1, 1, 0], [0, 0, 1]]),
    "zero": affine([[0, 0, 0], [0, 0, 0], [0, 0, 1]]),
    "NaN map": affine([[np.nan, 0, 0], [0, 1, 0], [0, 0, 1]]),
    "failing image": pixels(failing),
    "12-bit image": pixels(lambda a: a.astype(np.uint16) * 16),
    "black image": pixels(lambda a: a * 0),
    "integer image": pixels(lambda a: a.astype(np.int64)),
    "frame": in_obsm(lambda v, t: pd.DataFrame(v, index=t.obs_names, columns=[str(i) for i in range(v.shape[1])])),
    "sparse": in_obsm(lambda v, _: sp.csr_matrix(v)),
    "3-D": in_obsm(lambda v, _: np.stack([v, v], 2)),
    "words": in_obsm(lambda v, _: np.full(v.shape, "a", object)),
    "text": in_obsm(lambda v, _: v.astype(str)),
    "no column": in_obsm(lambda v, _: v[:, :0]),
    "NaN": in_obsm(lambda v, _: np.full(v.shape, np.nan)),
    "inf": in_obsm(lambda v, _: np.where(np.arange(len(v))[:, None] == 3, np.inf, v)),
    "lists": in_obs([1, 2]),
    "missing": in_obs(None),
    "one value": in_obs("same"),
    "one row": rows(1),
    "repeated names": named("x"),
    "integer columns": integer_columns,
    "two columns": two_columns_of_one_name,
    "text in uns": uns("x"),
    "records of text": uns({"sw_label": "x", "tiles": {"parameters": "{bad"}}),
}


# ------------------------------------------------------------------------------------------------- before and after


def digest(data: Any) -> str:
    """Hash of everything that a call could change."""
    sha = hashlib.sha256()
    for _, name, element in sorted(data.gen_elements(), key=lambda e: e[1]):
        sha.update(name.encode())
        sha.update(_of_table(element) if isinstance(element, ad.AnnData) else _of_element(element))
    return sha.hexdigest()


def _of_table(table: Any) -> bytes:
    obs = table.obs
    parts = [
        repr(list(obs.columns)),
        *(repr(obs.iloc[:, i].tolist()) for i in range(obs.shape[1])),
        repr(list(obs.index)),
    ]
    for part in (table.obsm, table.layers, table.obsp):
        for key, value in part.items():
            dense = value.toarray() if sp.issparse(value) else np.asarray(value)
            parts += [str(key), type(value).__name__, hashlib.sha256(repr(dense.tolist()).encode()).hexdigest()]
    return "\n".join([*parts, repr(dict(table.uns)), repr(table.shape), repr(table.X)]).encode()


def _of_element(element: Any) -> bytes:
    from spatialdata.transformations import get_transformation

    where = repr(get_transformation(element, get_all=True))
    frame = element.to_wkt().to_csv() if hasattr(element, "to_wkt") else str(id(element))
    return f"{where} {frame}".encode()


def told(error: Exception) -> str:
    """Nothing for a message of this package, else where the error comes from."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    line = linecache.getline(last.filename, last.lineno or 0).strip()
    own = isinstance(error, OWN) and last.filename.startswith(ROOT) and line.startswith("raise")
    return "" if own else f"{type(error).__name__}: {str(error)[:90]} ({last.filename}, line {last.lineno})"


@pytest.fixture(scope="module")
def prepared() -> Any:
    """A section with image features, labels, a truth, batches and patients."""
    section = sw.datasets.simulate_sections(1, 40, n_genes=60, n_reference_cells=50, random_state=0).sections["P1"]
    del section.tables["cells"]
    table = section["table"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sw.tl.zero_shot_annotate(section, LABELS, unknown="label")
    number = np.arange(table.n_obs)
    table.obs["patient"] = pd.Categorical(np.where(number % 2, "A", "B"))
    table.obs["batch"] = pd.Categorical(np.where(number < 20, "u", "v"))
    table.obs["truth"] = pd.Categorical(np.where(number % 3, "fat", "tumour"))
    return section


def copy_of(section: Any) -> sd.SpatialData:
    from copy import deepcopy

    shapes = {name: element.copy() for name, element in section.shapes.items()}
    for name, element in shapes.items():
        element.attrs = deepcopy(section.shapes[name].attrs)
    tables = {name: table.copy() for name, table in section.tables.items()}
    return sd.SpatialData(images=dict(section.images), shapes=shapes, tables=tables)


def cases() -> list[tuple[str, str, Any]]:
    out: list[tuple[str, str, Any]] = [(name, damage, None) for name in CALLS for damage in DAMAGES]
    for name, (function, _) in CALLS.items():
        known = list(inspect.signature(function).parameters)
        known += SLIDE if "slide" in known else ()
        out += [(name, argument, value) for argument in known for value in ARGUMENTS.get(argument, ())]
    random.Random(SEED).shuffle(out)
    return out


def failures(prepared: Any, chosen: list[tuple[str, str, Any]]) -> list[str]:
    import matplotlib.pyplot as plt

    wrong = []
    for name, what, value in chosen:
        function, options = CALLS[name]
        data, options = copy_of(prepared), dict(options)
        if what in DAMAGES:
            DAMAGES[what](data)
        else:
            options[what] = value
        if name in WITH_MODEL:
            options["model"] = sw.models.default_model()
        before = digest(data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                function(data, **options)
        except Exception as error:  # noqa: BLE001 - any error is looked at
            why = told(error) or ("" if digest(data) == before else f"the object is changed after {error!r}")
            wrong += [f"{name}, {what}={value!r}: {why}"] if why else []
        plt.close("all")
    return wrong


def test_a_part_of_the_campaign(prepared: Any) -> None:
    assert not failures(prepared, cases()[:N_FAST])


@pytest.mark.slow
def test_more_of_the_campaign(prepared: Any) -> None:
    assert not failures(prepared, cases()[N_FAST : N_FAST + N_SLOW])


def test_the_campaign_is_large_enough() -> None:
    assert len(cases()) > N_FAST + N_SLOW


def test_every_public_function_checks_its_arguments_at_the_door() -> None:
    unchecked = []
    for module in (sw.pp, sw.tl, sw.pl):
        for name in module.__all__:
            function = getattr(module, name)
            if inspect.isfunction(function) and set(inspect.signature(function).parameters) & set(RULES):
                unchecked += [] if hasattr(function, "__wrapped__") else [f"{module.__name__}.{name}"]
    # training has a door of its own
    assert unchecked == ["spatialwhisperer.tl.train"]
