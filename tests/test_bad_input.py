"""What goes wrong most often: each case has its own message and changes nothing."""

from __future__ import annotations

import shutil
import warnings
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd

import spatialwhisperer as sw
from spatialwhisperer._access.table.counts import align_counts
from spatialwhisperer._messages import SpatialWhispererWarning


def snapshot(data: Any) -> dict[str, Any]:
    """Keys and shapes of everything that a call could change."""
    tables = dict(data.tables) if isinstance(data, sd.SpatialData) else {"": data}
    out: dict[str, Any] = {}
    for name, table in tables.items():
        out[name] = {
            "shape": table.shape,
            "obs": list(table.obs),
            "var": list(table.var),
            "obsm": {k: np.shape(v) for k, v in table.obsm.items()},
            "layers": list(table.layers),
            "obsp": list(table.obsp),
            "uns": sorted(table.uns),
            "recorded": sorted(table.uns.get("spatialwhisperer", {})),
        }
    if isinstance(data, sd.SpatialData):
        out["elements"] = sorted(name for _, name, _ in data.gen_elements())
        out["radius"] = {k: v["radius"].tolist() for k, v in data.shapes.items() if "radius" in v}
    return out


@pytest.fixture
def refused() -> Any:
    """Calls, expects the error, and compares the data before and after."""

    def call(error: type[Exception], message: str, function: Any, data: Any, *arguments: Any, **options: Any) -> None:
        watched = data if isinstance(data, list) else [data]
        before = [snapshot(d) for d in watched]
        with pytest.raises(error, match=message):
            function(data, *arguments, **options)
        assert [snapshot(d) for d in watched] == before

    return call


def bare(data: Any) -> Any:
    """Without the image features, so that they have to be computed."""
    table = data["table"] if isinstance(data, sd.SpatialData) else data
    del table.obsm["X_stain_texture"]
    return data


LABELS = ["tumour", "fat"]


@pytest.mark.parametrize(
    ("labels", "options", "error", "message"),
    [
        ([], {}, ValueError, "at least two names to choose from; found none"),
        (["tumour"], {}, ValueError, r"For one text use sw\.tl\.query"),
        (["fat", "tumour", "fat"], {}, ValueError, "holds fat more than once"),
        ("tumour", {}, TypeError, "not the string 'tumour'"),
        (["tumour", " "], {}, ValueError, "an empty name"),
        ({"tumour": [], "fat": "fat"}, {}, ValueError, "without a description"),
        (["tumour", 3], {}, TypeError, "must be text; found 3"),
        (LABELS, {"templates": "a photo"}, ValueError, r"Each template needs \{\}"),
        (LABELS, {"templates": []}, ValueError, "Each template"),
        (LABELS, {"normalize": "zscore"}, ValueError, "'none', 'softmax' or 'centre', not 'zscore'"),
        (LABELS, {"min_confidence": 50}, ValueError, "between 0 and 1, not 50"),
        (
            LABELS,
            {"modality": "text"},
            ValueError,
            r"modality='text': a table holds no text of its own; choose 'gene' or 'image'",
        ),
        (LABELS, {"modality": "protein"}, ValueError, "modality='protein': there is no such modality; choose"),
        (set(LABELS), {}, TypeError, r"a set has none\. Pass a list: sorted\(labels\)"),
        (iter(LABELS), {}, TypeError, "a list of names or a mapping"),
        (7, {}, TypeError, "a list of names or a mapping from name to description, not 7"),
        ({"tumour": 1, "fat": "fat"}, {}, TypeError, "must be text; found 1"),
        (["tumour", float("nan"), float("nan")], {}, TypeError, r"must be text; found nan\.$"),
        (pd.Series(["fat", "fat", "tumour"]), {}, ValueError, r"more than once.*column\.dropna\(\)\.unique\(\)"),
        (pd.Series(["fat", None, "tumour"]), {}, TypeError, r"must be text.*column\.dropna\(\)\.unique\(\)"),
        (["fat", "Fat", "tumour"], {}, ValueError, "same embedding for the labels 'fat' and 'Fat'"),
        (LABELS, {"templates": None}, TypeError, "templates must be text"),
        (
            LABELS,
            {"batch_size": 0, "modality": "gene"},
            ValueError,
            "batch_size must be a positive whole number, not 0",
        ),
        (LABELS, {"batch_size": 2.5, "modality": "image"}, ValueError, "batch_size must be .* not 2.5"),
        (LABELS, {"table_key": "spots"}, KeyError, "table_key='spots' is not a table"),
        (LABELS, {"library_key": "section"}, ValueError, "library_key applies to AnnData"),
        (LABELS, {"layer": "counts", "modality": "gene"}, KeyError, "counts"),
        (LABELS, {"model": 3}, TypeError, "not int"),
        (
            LABELS,
            {"model": "no_model_here"},
            FileNotFoundError,
            "There is no folder no_model_here .*Names are her2st-mini",
        ),
    ],
)
def test_bad_arguments(
    refused: Any, section: Any, model: Any, labels: Any, options: Any, error: Any, message: str
) -> None:
    refused(error, message, sw.tl.zero_shot_annotate, section, labels, **({"model": model} | options))


def test_a_folder_without_a_model(refused: Any, section: Any, tmp_path: Any) -> None:
    refused(FileNotFoundError, "holds no model", sw.tl.zero_shot_annotate, section, LABELS, model=tmp_path)


@pytest.mark.parametrize("name", ["", " ", "my/label", "spatialwhisperer", 3])
def test_names_that_no_key_can_have(refused: Any, section: Any, model: Any, name: Any) -> None:
    calls: list[tuple[Any, dict[str, Any]]] = [
        (sw.tl.zero_shot_annotate, {"model": model}),
        (sw.tl.query, {"text": "fat", "model": model}),
        (sw.tl.embed, {"model": model}),
        (sw.tl.classify, {"labels_key": "cell_type", "use": "X_stain_texture"}),
        (sw.tl.evaluate_classes, {"labels_key": "cell_type", "use": "X_stain_texture"}),
        (sw.tl.spatial_domains, {"n_domains": 2, "use": "observed"}),
        (sw.tl.predict_expression, {"model": model}),
        (sw.pp.embed_images, {"tile_um": 80}),
        (sw.pp.embed_genes, {"encoder": "pca"}),
        (sw.pp.tiles, {"tile_um": 80, "at": "grid"}),
    ]
    for function, options in calls:
        error = ValueError if isinstance(name, str) else TypeError
        refused(error, "key_added must be", function, section, key_added=name, **options)


@pytest.mark.parametrize(
    ("text", "error"), [(None, TypeError), (3, TypeError), (["fat", 3], TypeError), ([], ValueError)]
)
def test_questions_that_are_no_text(refused: Any, section: Any, model: Any, text: Any, error: Any) -> None:
    refused(error, "text must be (a sentence|text or a list of text)", sw.tl.query, section, text, model=model)


def test_several_sections_at_once(simulated: Any, model: Any) -> None:
    for function, arguments in ((sw.tl.query, ["fat"]), (sw.tl.embed, [])):
        with pytest.raises(TypeError, match=r"not list\. Pass its objects one at a time: for section in sections: "):
            function(list(simulated.sections.values()), *arguments, model=model)
        with pytest.raises(TypeError, match=r"not dict\. .* for section in sections\.values\(\): "):
            function(simulated.sections, *arguments, model=model)
    with pytest.raises(TypeError, match=r"not dict_values\. .* as a list: list\(sections\.values\(\)\)"):
        sw.tl.train(simulated.sections.values())


def test_not_data_at_all(model: Any) -> None:
    with pytest.raises(TypeError, match="must be an AnnData or a SpatialData, not ndarray"):
        sw.tl.zero_shot_annotate(np.zeros((3, 3)), LABELS, model=model)


# ------------------------------------------------------------------------------------------------- images and places


def test_no_image(refused: Any, adata: Any, model: Any) -> None:
    bare(adata)
    del adata.uns["spatial"]
    refused(KeyError, "no H&E image", sw.tl.embed, adata, model=model, modality="image")
    empty = adata[:, :0].copy()
    refused(KeyError, "There is nothing to embed", sw.tl.zero_shot_annotate, empty, LABELS, model=model)


def test_no_positions(refused: Any, adata: Any, model: Any) -> None:
    bare(adata)
    del adata.obsm["spatial"]
    refused(KeyError, r"'spatial' not in \.obsm", sw.tl.embed, adata, model=model, modality="image")


def test_nan_coordinates(refused: Any, adata: Any, model: Any) -> None:
    bare(adata)
    adata.obsm["spatial"][7] = np.nan
    refused(ValueError, "1 of 120 rows .* NaN coordinates .first at row 7", sw.tl.embed, adata, model=model)


def test_spots_off_the_slide(refused: Any, adata: Any, model: Any) -> None:
    bare(adata)
    adata.obsm["spatial"][5] += 1e5
    refused(ValueError, "1 of 120 tile centres .* are off image .*row 5", sw.tl.embed, adata, model=model)


def test_missing_scale(refused: Any, adata: Any, model: Any) -> None:
    bare(adata)
    adata.uns["spatial"]["P3"]["scalefactors"] = {}
    message = r"microns per pixel of section 'P3' are not known\. Pass mpp=….*spot_pitch_um=….*sw\.pp\.tiles\(data, tile_um=…, mpp=…\)"
    refused(ValueError, message, sw.tl.zero_shot_annotate, adata, LABELS, model=model)
    # the remedies that the message names
    scores: Any = sw.tl.zero_shot_annotate(adata, LABELS, model=model, mpp=0.5, inplace=False)
    again: Any = sw.tl.zero_shot_annotate(adata.copy(), LABELS, model=model, spot_pitch_um=100, inplace=False)
    assert np.isfinite(again).all(axis=None)
    sw.pp.tiles(adata, tile_um=80, tile_px=64, mpp=0.5)
    sw.tl.zero_shot_annotate(adata, LABELS, model=model)
    assert adata.obs["sw_label"].notna().all()
    assert np.array_equal(adata.obsm["sw_label_scores"], scores)


def test_an_image_that_is_too_coarse(adata: Any, model: Any) -> None:
    library = bare(adata).uns["spatial"]["P3"]
    library["images"] = {"hires": library["images"]["fullres"][::4, ::4]}
    library["scalefactors"] |= {"tissue_hires_scalef": 0.25}
    with pytest.warns(SpatialWhispererWarning, match=r"sw\.pp\.tiles\(data, tile_um=80, on_low_res='allow'\)"):
        sw.tl.zero_shot_annotate(adata, LABELS, model=model, inplace=False)
    sw.pp.tiles(adata, tile_um=80, on_low_res="allow")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*would be enlarged.*")
        sw.tl.zero_shot_annotate(adata, LABELS, model=model, inplace=False)


def test_ambiguous_images(refused: Any, section: Any, model: Any) -> None:
    bare(section)
    section.images["P3_again"] = section.images["P3_image"].copy()
    refused(ValueError, "Several images share a coordinate system .*image_key", sw.tl.embed, section, model=model)


def test_a_table_of_two_regions_and_a_doubtful_image(refused: Any, simulated: Any, model: Any) -> None:
    two = sd.concatenate([simulated.sections["P1"], simulated.sections["P2"]], concatenate_tables=True)
    bare(two)
    # both images lie in the coordinate system of the first section now
    from spatialdata.transformations import Identity, set_transformation

    image = two.images["P2_image"].copy()
    set_transformation(image, Identity(), "P1")
    two.images["P2_copy"] = image
    refused(ValueError, "Several images share a coordinate system with 'P1_spots'", sw.tl.embed, two, model=model)


def test_unknown_encoders(refused: Any, section: Any, simulated: Any) -> None:
    data = [bare(section), simulated.reference]
    image = sw.tl.ImageFeatures("no_such_encoder", tile_um=80)
    refused(ValueError, "no_such_encoder", sw.tl.train, data, image=image)
    refused(ValueError, "no_such_encoder", sw.tl.train, data, gene="no_such_encoder")
    refused(ValueError, "no_such_encoder", sw.tl.train, data, text="no_such_encoder")
    refused(
        KeyError,
        r"'X_none' is not in \.obsm of any object",
        sw.tl.train,
        data,
        image=sw.tl.ImageFeatures(key="X_none"),
        preset=sw.models.get_preset("spatialwhisperer").replace(pairs={("image", "gene"): 1.0}),
    )


# ------------------------------------------------------------------------------------------------- counts


def test_log_normalised_counts(refused: Any, simulated: Any, section: Any, model: Any) -> None:
    import scanpy as sc

    logged = simulated.reference.copy()
    logged.X = logged.X.astype(np.float32)
    sc.pp.normalize_total(logged, target_sum=1e4)
    sc.pp.log1p(logged)
    refused(ValueError, "raw counts", sw.tl.train, [bare(section), logged])
    refused(ValueError, "raw counts", sw.tl.zero_shot_annotate, logged, LABELS, model=model)
    logged.layers["counts"] = simulated.reference.X
    sw.tl.zero_shot_annotate(logged, LABELS, model=model, layer="counts")
    assert "sw_label" in logged.obs


def test_real_log_normalised_cells(refused: Any, data_folder: Any) -> None:
    files = sorted(data_folder.rglob("pbmc68k_reduced_lognorm*"))
    if not files:
        pytest.skip("the folder holds no pbmc68k_reduced_lognorm")
    pbmc = ad.read_h5ad(files[0])
    pbmc.obs["text"] = "blood cells"
    refused(ValueError, "raw counts", sw.tl.train, pbmc)


def test_other_genes(refused: Any, simulated: Any, section: Any, model: Any) -> None:
    other = simulated.reference.copy()
    other.var_names = [f"mouse{i}" for i in range(other.n_vars)]
    other.var = other.var[[]]
    refused(ValueError, "genes", sw.tl.zero_shot_annotate, other, LABELS, model=model)
    refused(ValueError, "No gene is in all 2 objects", sw.tl.train, [bare(section), other])


def test_genes_of_another_species(refused: Any, simulated: Any, model: Any) -> None:
    mouse = simulated.reference.copy()
    mouse.var = mouse.var[[]]
    mouse.var_names = mouse.var_names.str.capitalize()
    n = len(model.encoders["gene"].genes)
    kept = sum(g == g.capitalize() for g in model.encoders["gene"].genes)
    message = (
        f"Only {kept} of the encoder's {n} genes .* look like another species' symbols: {kept} names are the same, and {n} "
        r"when .* are taken as one \(\w+ for \w+.*orthologs"
    )
    for call in (sw.tl.zero_shot_annotate, sw.tl.embed):
        refused(ValueError, message, call, mouse, model=model, modality="gene")
    # with Ensembl ids the species has a name
    mouse.var["gene_ids"] = [f"ENSMUSG{i:011d}" for i in range(mouse.n_vars)]
    ids = [f"ENSG{i:011d}" for i in range(n)]
    message = f"{mouse.n_vars} of the table's Ensembl ids start with ENSMUSG, {n} of the model's with ENSG"
    with pytest.raises(ValueError, match=message):
        align_counts(model.encoders["gene"].genes, ids, mouse)


def test_another_panel_is_not_called_another_species(simulated: Any, model: Any) -> None:
    few = simulated.reference[:, :20].copy()
    few.var_names = [*few.var_names[:10], *few.var_names[10:14].str.capitalize(), *(f"OTHER{i}" for i in range(6))]
    few.var = few.var[[]]
    with pytest.raises(ValueError, match=r"fewer than half\. The encoder knows .*another species or panel"):
        sw.tl.embed(few, model=model, modality="gene")


def test_an_empty_table(refused: Any, adata: Any, model: Any) -> None:
    empty = bare(adata)[:0].copy()
    refused(ValueError, "no rows", sw.tl.embed, empty, model=model)


def test_no_captions(refused: Any, simulated: Any) -> None:
    silent = simulated.reference.copy()
    del silent.obs["text"]
    refused(ValueError, r"No object holds .*gene–text pairs.*object 0 \(250 rows\): gene", sw.tl.train, silent)
    silent.obs["text"] = np.nan
    refused(ValueError, r"TextFeatures\(key=…\)", sw.tl.train, silent)


# ------------------------------------------------------------------------------------------------- models


def test_features_of_another_width(refused: Any, section: Any, model: Any) -> None:
    section["table"].obsm["X_stain_texture"] = np.zeros((120, 3), np.float32)
    refused(ValueError, r"gives features of shape \(n, 158\); found \(120, 3\)", sw.tl.embed, section, model=model)


def test_a_model_without_the_modality(refused: Any, simulated: Any, section: Any) -> None:
    genes_only = sw.tl.train(simulated.reference, gene="pca", max_epochs=1)
    refused(KeyError, "cannot embed 'image'", sw.tl.embed, section, model=genes_only, modality="image")
    sections = [simulated.sections["P1"], simulated.sections["P2"]]
    images_only = sw.tl.train(sections, image=sw.tl.ImageFeatures(tile_um=80, tile_px=64), gene="pca", max_epochs=1)
    refused(KeyError, "reads no text", sw.tl.zero_shot_annotate, section, LABELS, model=images_only)
    refused(ValueError, "knows no captions", sw.tl.zero_shot_annotate, section, model=images_only)


def test_a_broken_model_folder(refused: Any, section: Any, model: Any, tmp_path: Any) -> None:
    folder = shutil.copytree(model.folder, tmp_path / "m")
    (folder / "model.safetensors").write_bytes(b"broken")
    refused(ValueError, "cut off or changed", sw.tl.embed, section, model=folder)


# values of types that a checker of types would refuse
ODD: Any = {
    "key": ["a", "a"],
    "terms": iter(["fat"]),
    "sizes": [["a"], []],
    "number": np.array(2),
    "table": pd.DataFrame(),
    "series": pd.Series(["a", "b"]),
    "axes": iter(["a"]),
}
LONG = "x" * 300


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda _: sw.datasets.simulate_sections(1, 1, spot_pitch_um=3), ValueError, "has no cell in its tissue"),
        (lambda x: sw.pl.confusion(x, labels_key="cell_type", key=ODD["key"]), TypeError, "key must be text"),
        (lambda _: sw.models.Ontology(ODD["terms"]), TypeError, "terms must be terms"),
        (lambda x: sw.pp.tiles(x, tile_um=ODD["sizes"]), ValueError, "tile_um must be a positive number"),
        (lambda x: sw.tl.query(x, ODD["number"]), TypeError, "text must be a sentence"),
        (lambda x: sw.tl.zero_shot_annotate(x, ODD["number"]), TypeError, "labels must be a list of names"),
        (lambda x: sw.tl.train(x, gene=ODD["table"]), TypeError, "gene must be a name"),
        (
            lambda x: sw.pl.annotation(x, key="cell_type", axes=ODD["axes"]),
            TypeError,
            "axes must be axes of matplotlib",
        ),
        (lambda x: sw.tl.spatial_domains(x, use=ODD["series"], n_domains=3), TypeError, "use must be text"),
        (lambda x: sw.pp.tiles(x, tile_um=1e-12, at="grid"), ValueError, "tiles would lie beside each other"),
        (lambda x: sw.pl.top_tiles(x, "n_cells", tile_um=2**40), ValueError, "do not fit into memory"),
        (lambda _: sw.pp.embed_texts([LONG], encoder=LONG), ValueError, "There is no text encoder"),
        (lambda _: sw.models.Ontology.read(LONG), FileNotFoundError, "There is no file"),
        (lambda x: sw.tl.zero_shot_annotate(x, model=LONG), FileNotFoundError, "There is no folder"),
    ],
)
def test_values_of_odd_shapes_are_refused_by_name(section: Any, call: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call(section)


def test_a_negative_zero_is_zero() -> None:
    """A patient-to-patient standard deviation of -0.0 draws no error of the random generator."""
    one, other = (sw.datasets.simulate_sections(1, 20, n_genes=60, batch_sd=x, stain_sd=x) for x in (0.0, -0.0))
    assert np.array_equal(one.sections["P1"]["table"].X.toarray(), other.sections["P1"]["table"].X.toarray())
