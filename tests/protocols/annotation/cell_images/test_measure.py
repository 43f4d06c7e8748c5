from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import savemat

from spatialwhisperer.datasets.lizard import CLASSES
from spatialwhisperer.protocols.__main__ import main
from spatialwhisperer.protocols.annotation.cell_images import measure as cell_images
from spatialwhisperer.protocols.annotation.cell_images.tables import macro
from spatialwhisperer.protocols.annotation.label_sets import LIZARD, PANNUKE, PATHOCELL

pytestmark = pytest.mark.usefixtures("model")  # which writes run_folder
NAMES = ("crag_11", "dpath_4", "glas_2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three images in the authors' layout, with few nuclei, so that classes are absent from some tiles."""
    root = tmp_path_factory.mktemp("lizard")
    (root / "Lizard_Labels/Labels").mkdir(parents=True)
    for part in (1, 2):
        (root / f"Lizard_Images{part}").mkdir()
    for seed, name in enumerate(NAMES):
        rng = np.random.default_rng(seed)
        size = (700, 700 if seed < 2 else 500)
        instances = np.zeros(size, np.int32)
        n = 25
        for number in range(1, n + 1):
            y, x = (int(rng.integers(0, s - 10)) for s in size)
            instances[y : y + 8, x : x + 8] = number
        ids = np.unique(instances)[1:]
        savemat(
            root / f"Lizard_Labels/Labels/{name}.mat",
            {"inst_map": instances, "id": ids[:, None], "class": rng.integers(1, 7, len(ids))[:, None]},
        )
        pixels = rng.integers(100, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"Lizard_Images{1 if seed == 0 else 2}" / f"{name}.png")
    return root


def arguments(folder, out, run_folder, *more: str) -> list[str]:
    return [
        *("annotation", "--dataset", "lizard", "--data", str(folder), "--out", str(out)),
        *("--model", str(run_folder / "model"), "--images", *NAMES, *more),
    ]


def naive(scores: pd.DataFrame, folder) -> pd.DataFrame:
    """The published convention, tile by tile and pair by pair."""
    from scipy.io import loadmat

    rows = []
    for name, part in scores.groupby("image", sort=False):
        label = loadmat(folder / f"Lizard_Labels/Labels/{name}.mat")
        instances = label["inst_map"]
        class_of = dict(zip(label["id"].ravel(), label["class"].ravel(), strict=True))
        counts: dict = {}
        for i, c in class_of.items():
            y, x = np.nonzero(instances == i)
            counts.setdefault((int(x.mean() / 224), int(y.mean() / 224)), np.zeros(7))[c] += 1
        merged = {"Epithelial": [2], "Leukocyte": [1, 3, 5], "Fibroblast": [6]}
        for group, codes in merged.items():
            present, values = [], []
            for _, tile in part.iterrows():
                own = counts[tile["x_array"], tile["y_array"]]
                if own.argmax() == 4:  # mostly plasma cells
                    continue
                present.append(own[codes].sum() > 0)
                values.append(sum(tile[CLASSES[code]] for code in codes))
            yes = [v for v, p in zip(values, present, strict=True) if p]
            no = [v for v, p in zip(values, present, strict=True) if not p]
            wins = [(a > b) + 0.5 * (a == b) for a in yes for b in no]
            rows.append((name, group, np.mean(wins) if wins else np.nan, len(yes), len(present)))
    return pd.DataFrame(rows, columns=["image", "class", "auroc", "n_present", "n"])


def test_lizard_equals_a_naive_loop(folder, tmp_path, run_folder) -> None:
    main(arguments(folder, tmp_path, run_folder, "--prompts", "terms1", "tissue"))
    table = pd.read_csv(tmp_path / "annotation_lizard.csv")
    scores = pd.read_csv(tmp_path / "annotation_lizard_scores.csv")
    assert set(scores["prompts"]) == {"terms1", "tissue"}
    n_tiles = len(scores) // 2
    assert n_tiles > 12
    for prompts in ("terms1", "tissue"):
        expected = naive(scores[scores["prompts"] == prompts], folder)
        got = table[table["prompts"] == prompts].reset_index(drop=True)
        pd.testing.assert_frame_equal(got[list(expected)], expected, check_dtype=False, rtol=1e-9)
        by_class = [g["auroc"].dropna().mean() for _, g in expected.groupby("class")]
        assert macro(got) == pytest.approx(np.mean(by_class))
    assert table["auroc"].notna().any()
    text = (tmp_path / "annotation_lizard.md").read_text()
    assert f"| this model (terms1) | {macro(table[table['prompts'] == 'terms1']):.3f} |" in text
    assert "| SpatialWhisperer, released (terms1) | 0.764 |" in text
    assert f"{n_tiles} tiles of 3 images" in text


def test_scores_are_those_of_the_tiles(folder, tmp_path, model, run_folder) -> None:
    """The kept features give what annotating the image directly gives."""
    import spatialwhisperer as sw
    from spatialwhisperer.datasets.lizard import lizard

    main(arguments(folder, tmp_path, run_folder, "--statistics", "image"))
    scores = pd.read_csv(tmp_path / "annotation_lizard_scores.csv")
    words = {c: LIZARD.choose("terms1").text(c) for c in LIZARD.prompted}
    mpp = model.config.modality("image").features.tile_um[0] / 224
    for name, sdata in lizard(data_dir=folder, images=list(NAMES), mpp=mpp).items():
        direct = sw.tl.zero_shot_annotate(sdata, words, model=model, modality="image", normalize="none", inplace=False)
        assert direct is not None
        kept = scores[scores["image"] == name][list(direct)]
        np.testing.assert_allclose(kept.to_numpy(), direct.to_numpy(), atol=2e-5)


def test_an_interrupted_run_goes_on(folder, tmp_path, run_folder) -> None:
    main(arguments(folder, tmp_path, run_folder))
    before = (tmp_path / "annotation_lizard.csv").read_text()
    files = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.npz")}
    assert len(files) == 3
    next(iter(files)).unlink()
    main(arguments(folder, tmp_path, run_folder, "--prompts", "terms1"))
    again = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.npz")}
    assert sum(files[p] != again[p] for p in files) == 1
    assert (tmp_path / "annotation_lizard.csv").read_text() == before
    main(arguments(folder, tmp_path, run_folder, "--field", "model"))
    assert len(list(tmp_path.rglob("*.npz"))) == 6


def test_a_trained_image_tower(folder, tmp_path, simulated) -> None:
    """Its embeddings are kept instead of features, under a name that depends on its weights."""
    import torch

    import spatialwhisperer as sw

    pair = [simulated.sections["P1"], simulated.reference]
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, 8))
    model = sw.tl.train(
        pair,
        preset=sw.models.get_preset("spatialwhisperer").replace(locking="LLu"),
        image=sw.tl.ImageFeatures(network, tile_um=80, tile_px=64),
        max_epochs=1,
        folder=tmp_path / "run",
    )
    options = cell_images.Options(NAMES[:2])
    table = cell_images.run("lizard", folder, tmp_path / "out", model=model, options=options)
    assert table["auroc"].notna().any()
    first = next((tmp_path / "out" / "tiles").iterdir()).name
    with torch.no_grad():
        next(model.towers["image"].parameters()).add_(0.1)
    assert cell_images.fingerprint(model, "lizard", options) not in first


def test_a_model_that_sees_neighbours(folder, tmp_path, simulated) -> None:
    """Tiles of an image are neighbours of each other and of no other image's."""
    import spatialwhisperer as sw

    sections = [simulated.sections["P1"], simulated.reference]
    model = sw.tl.train(
        sections,
        preset=sw.models.get_preset("whisperer").replace(neighbour_weight=0.5, refine="never"),
        image=sw.tl.ImageFeatures(tile_um=80, tile_px=64),
        expression=False,
    )
    assert model.config.modality("image").context is not None
    options = cell_images.Options(NAMES)
    together = cell_images.run("lizard", folder, tmp_path, model=model, options=options)
    assert together["auroc"].notna().any()
    assert "neighbouring tiles" in (tmp_path / "annotation_lizard.md").read_text()
    scores = pd.read_csv(tmp_path / "annotation_lizard_scores.csv")
    cell_images.run("lizard", folder, tmp_path, model=model, options=cell_images.Options(NAMES[::-1]))
    again = pd.read_csv(tmp_path / "annotation_lizard_scores.csv").set_index(["image", "x_array", "y_array"])
    again = again.loc[pd.MultiIndex.from_frame(scores[["image", "x_array", "y_array"]]), LIZARD.prompted]
    np.testing.assert_allclose(again.to_numpy(), scores[LIZARD.prompted].to_numpy(), atol=1e-4)


def test_what_the_command_refuses(folder, tmp_path, model) -> None:
    with pytest.raises(SystemExit, match="needs --model"):
        main(["annotation", "--dataset", "lizard", "--data", str(folder), "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="--model belongs to"):
        main(["annotation", "--data", str(folder), "--out", str(tmp_path), "--model", "x"])
    with pytest.raises(ValueError, match="lack the images crag_2"):
        cell_images.run("lizard", folder, tmp_path, model=model)
    with pytest.raises(ValueError, match="no prompts 'terms3'"):
        cell_images.run("lizard", folder, tmp_path, model=model, prompts=["terms3"])
    with pytest.raises(ValueError, match="no data set 'skin'"):
        cell_images.run("skin", folder, tmp_path, model=model)


def test_a_model_of_features_that_only_its_owner_can_compute_is_refused(model) -> None:
    import copy

    from spatialwhisperer.models import FeatureRecipe

    given = copy.deepcopy(model)
    given.config = model.config.with_modality("image", features=FeatureRecipe(None, "X_mine"))
    with pytest.raises(ValueError, match=r"trained on the image features in \.obsm\['X_mine'\]"):
        cell_images.image_recipe(given)


def test_pathocell_and_pannuke_run(tmp_path, model) -> None:
    import h5py

    for dataset, names in (("pannuke", PANNUKE), ("pathocell", PATHOCELL)):
        root = tmp_path / dataset
        root.mkdir()
        rng = np.random.default_rng(0)
        classes = ("Background", *dict.fromkeys([*names.prompted, *names.dropped, *names.unscored]))
        if dataset == "pathocell":
            pairs = ", ".join(f"{i}: '{c}'" for i, c in enumerate(classes))
            (root / "CT_coarse_mapping.txt").write_text("{" + pairs + "}")
        instances = np.zeros((700, 700), np.uint16)
        code = np.zeros((700, 700), np.uint8)
        for number in range(1, 60):
            y, x = rng.integers(0, 690, 2)
            instances[y : y + 8, x : x + 8] = number
            code[y : y + 8, x : x + 8] = rng.integers(0, 6)
        with h5py.File(root / "one.hdf", "w") as file:
            file["img"] = rng.integers(0, 255, (3, 700, 700), dtype=np.uint8)
            file["gt_inst"], file["gt_ct"], file["gt_ct_coarse"] = instances[None], code[None], code[None]
        table = cell_images.run(dataset, root, tmp_path / "out", model=model, prompts=["terms1", "terms2", "raw"])
        assert set(table["class"]) == set(names.groups)
        assert table["auroc"].between(0, 1).any()
        assert (tmp_path / "out" / f"annotation_{dataset}.md").read_text().count("as published") == 1
