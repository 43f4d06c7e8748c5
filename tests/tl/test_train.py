"""Training end to end; what happens inside is tested in ``tests/training`` and ``tests/tl/training``."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import spatialdata as sd
import torch
from scipy.sparse import csr_matrix

import spatialwhisperer as sw
from spatialwhisperer.tl._training import readers

if TYPE_CHECKING:
    from pathlib import Path

TILES = sw.tl.ImageFeatures(tile_um=80, tile_px=64)
NETWORK = sw.tl.ImageFeatures("test_resnet.r160_in1k", tile_um=80, tile_px=32)


def preset(**changes: Any) -> sw.models.Preset:
    small = {"batch_size": 128, "projection_dim": 16}
    return sw.models.get_preset("spatialwhisperer").replace(**small | changes)


def train(data: Any, *, image: Any = TILES, max_epochs: int = 1, **options: Any) -> Any:
    return sw.tl.train(data, image=image, max_epochs=max_epochs, **{"preset": preset()} | options)


def same(a: sw.models.Whisperer, b: sw.models.Whisperer) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.fixture(scope="module")
def objects(simulated: Any) -> list[Any]:
    return [simulated.sections["P1"], simulated.sections["P2"], simulated.reference]


def copy(section: Any, *, features: bool = True) -> Any:
    """The section with a table of its own."""
    table = section["table"].copy()
    if not features:
        del table.obsm["X_stain_texture"]
        del table.uns["spatialwhisperer"]
    return sd.SpatialData(images=dict(section.images), shapes=dict(section.shapes), tables={"table": table})


# ------------------------------------------------------------------------------------------------- what comes out


def test_few_pairs_are_trained_sequentially_with_a_ridge_link(model: Any, run_folder: Path) -> None:
    training = model.config.training
    assert training.preset == "spatialwhisperer"
    assert training.schedule == "sequential"
    assert training.image_link == "ridge"
    # features of a frozen encoder are not augmented
    assert training.augmentation is None
    assert training.pairs == {"image–gene": 240, "gene–text": 250}
    assert training.groups == ("P1", "P2", "R1", "R2")
    assert training.validation_groups == ()
    assert set(training.penalties) == {"ridge_alpha"}
    assert model.modalities == ("gene", "image", "text")
    assert len(model.labels) == 5
    assert not model.training
    assert model.folder == run_folder.resolve() / "model"
    first = model.history.query("phase == 'gene-text'")
    assert first["loss"].iloc[-1] < first["loss"].iloc[0]
    assert len(list((run_folder / "phases" / "gene-text").glob("step-*.ckpt"))) == 2
    assert "240 image–gene" in repr(model)


def test_the_features_of_the_model_are_those_that_were_asked_for(model: Any) -> None:
    image = model.config.modalities["image"].features
    assert (image.name, image.tile_um, image.tile_px) == ("stain_texture", (80.0,), 64)
    assert model.config.modalities["gene"].features.name == "pca"
    assert model.config.modalities["text"].features.name == "minilm"


def test_one_pair_alone_is_enough(simulated: Any) -> None:
    model = train(simulated.reference)
    assert model.modalities == ("gene", "text")
    assert model.config.training.schedule == "joint"


def test_sections_may_come_in_a_mapping(simulated: Any) -> None:
    model = train({name: simulated.sections[name] for name in ("P1", "P2")})
    assert model.modalities == ("gene", "image")
    assert model.config.training.schedule == "joint"


def test_the_joint_schedule_has_the_dimension_of_its_recipe(objects: list[Any]) -> None:
    joint = train(objects, preset=preset(schedule="joint", projection_dim=512))
    assert joint.config.training.schedule == "joint"
    assert joint.config.projection_dim == 512
    assert set(joint.history["phase"]) == {"joint"}


@pytest.mark.parametrize("schedule", ["joint", "sequential"])
def test_the_seed_decides(objects: list[Any], schedule: str) -> None:
    models = []
    for number, seed in enumerate((4, 4, 5)):
        torch.manual_seed(number)
        models.append(train(objects, preset=preset(schedule=schedule), max_epochs=1, random_state=seed))
    assert same(models[0], models[1])
    assert not same(models[0], models[2])


@pytest.mark.parametrize(
    "options",
    [
        {"image": NETWORK, "preset": preset(schedule="joint", locking="LLu")},
        {"preset": preset()},
        {"preset": "whisperer", "expression": False},
    ],
    ids=["network", "ridge", "closed form"],
)
@pytest.mark.slow
def test_the_process_keeps_its_random_state(objects: list[Any], options: dict[str, Any]) -> None:
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    train(objects, **options)
    after = random.getstate(), np.random.get_state()[1], torch.get_rng_state()  # noqa: NPY002
    assert before[0] == after[0]
    assert np.array_equal(before[1], after[1])
    assert torch.equal(before[2], after[2])


# ------------------------------------------------------------------------------------------------- which rows take part


def test_incomplete_image_rows_are_left_out(simulated: Any) -> None:
    table = simulated.sections["P1"]["table"].copy()
    del table.uns["spatialdata_attrs"]
    table.obsm["X_given"] = table.obsm["X_stain_texture"].copy()
    table.obsm["X_given"][:20] = np.nan
    model = train([table, simulated.reference], image=sw.tl.ImageFeatures(key="X_given"))
    assert model.config.training.pairs == {"image–gene": 100, "gene–text": 250}
    assert model.config.modalities["image"].features.key == "X_given"
    assert model.config.modalities["image"].features.encoder is None


def test_validation_is_by_group(objects: list[Any]) -> None:
    model = train(objects, validation=["P2", "R2"], preset=preset(schedule="joint"))
    training = model.config.training
    assert training.groups == ("P1", "R1")
    assert training.validation_groups == ("P2", "R2")
    assert training.pairs["image–gene"] == 120
    assert model.history["val_loss"].notna().all()
    assert {"val_loss_image_gene", "val_loss_gene_text"} <= set(model.history)


def test_held_out_rows_do_not_shape_the_model(objects: list[Any], simulated: Any) -> None:
    """What a held-out patient looks like changes nothing that is trained."""
    changed = simulated.reference.copy()
    held_out = (changed.obs["patient"] == "R2").to_numpy()
    counts = changed.X.toarray()
    counts[held_out] = np.random.default_rng(0).poisson(3, (int(held_out.sum()), changed.n_vars))
    changed.X = csr_matrix(counts)
    a = train(objects, validation="R2")
    b = train([*objects[:2], changed], validation="R2")
    assert same(a, b)
    assert np.array_equal(a.encoders["gene"].tensors()["mean"], b.encoders["gene"].tensors()["mean"])


def test_held_out_groups_leave_pairs_to_train_on(objects: list[Any]) -> None:
    with pytest.raises(ValueError, match="Too few pairs to train on: 0 gene–text"):
        train(objects, validation=["R1", "R2"])


# ------------------------------------------------------------------------------------------------- encoders that are trained


@pytest.mark.slow
def test_an_image_network_is_trained_end_to_end(
    objects: list[Any], section: Any, labels: dict[str, str], tmp_path: Path
) -> None:
    model = train(objects, image=NETWORK, preset=preset(locking="LLu"))
    assert model.config.training.image_link == "contrastive"
    assert model.config.training.augmentation == sw.models.Augmentation()
    assert set(model.history["phase"]) == {"gene-text", "image-gene"}
    assert model.config.modalities["image"].features.tile_um == (80.0,)
    assert model.config.modalities["image"].trained
    sw.tl.zero_shot_annotate(section, labels, model=model)
    z = section["table"].obsm["X_sw_image"]
    assert np.allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)
    again = sw.tl.embed(section, model=model, batch_size=7, inplace=False)
    assert again is not None
    assert np.allclose(again, z, atol=1e-5)
    opened = sw.models.Whisperer.load(model.save(tmp_path / "m"))
    after = sw.tl.embed(section, model=opened, inplace=False)
    assert after is not None
    assert np.array_equal(after, z)


@pytest.mark.slow
def test_scvi_is_trained_with_the_gene_head(objects: list[Any], section: Any, tmp_path: Path) -> None:
    encoder = sw.pp.fit_gene_encoder(objects[2], "scvi", n_latent=6, max_epochs=2)
    ones = np.ones((2, len(encoder.genes)), np.float32)
    before = encoder.encode(ones)
    model = train(objects, gene=encoder, preset=preset(locking="uLL"))
    assert model.config.training.image_link == "ridge"
    z = sw.tl.embed(section, model=model, modality="gene", inplace=False)
    assert z is not None
    assert np.allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)
    # the caller's own encoder is not changed
    assert np.array_equal(encoder.encode(ones), before)
    opened = sw.models.Whisperer.load(model.save(tmp_path / "m"))
    after = sw.tl.embed(section, model=opened, modality="gene", inplace=False)
    assert after is not None
    assert np.array_equal(after, z)


# ------------------------------------------------------------------------------------------------- runs


def stop_at(epoch: int) -> Any:
    from lightning.pytorch.callbacks import Callback

    class Stop(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
            if trainer.current_epoch == epoch:
                raise KeyboardInterrupt

    return Stop()


def test_an_interrupted_run_continues_in_its_folder(objects: list[Any], tmp_path: Path) -> None:
    options: dict[str, Any] = {"preset": preset(schedule="joint"), "max_epochs": 4, "folder": tmp_path}
    whole = train(objects, **options | {"folder": None})
    with pytest.raises(KeyboardInterrupt, match="resume=True"):
        train(objects, **options, trainer={"callbacks": [stop_at(2)]})
    assert len(list((tmp_path / "phases" / "joint").glob("step-*.ckpt"))) == 2
    with pytest.raises(FileExistsError, match="resume=True"):
        train(objects, **options)
    model = train(objects, **options, resume=True)
    assert model.history["epoch"].tolist() == [0, 1, 2, 3]
    assert np.array_equal(model.history["loss"], whole.history["loss"])
    assert same(model, whole)


@pytest.mark.slow
def test_a_run_that_trains_a_network_on_augmented_tiles_continues(simulated: Any, tmp_path: Path) -> None:
    """The same tiles after the interruption as without it; other tiles or another augmentation are another run."""
    sections = [simulated.sections["P1"], simulated.sections["P2"]]
    mine = preset(schedule="joint", locking="LLu")
    options: dict[str, Any] = {"image": NETWORK, "preset": mine, "max_epochs": 3, "validation": "P2"}
    whole = train(sections, **options)
    assert whole.config.training.augmentation == sw.models.Augmentation()
    with pytest.raises(KeyboardInterrupt, match="resume=True"):
        train(sections, **options, folder=tmp_path, trainer={"callbacks": [stop_at(2)]})
    plain = options | {"preset": mine.replace(augmentation=None)}
    with pytest.raises(ValueError, match=r"preset.augmentation.brightness: 0.1 before, nothing now"):
        train(sections, **plain, folder=tmp_path, resume=True)
    smaller = options | {"image": sw.tl.ImageFeatures("test_resnet.r160_in1k", tile_um=70, tile_px=32)}
    with pytest.raises(ValueError, match=r"features_asked.image.tile_um: 80 before, 70 now"):
        train(sections, **smaller, folder=tmp_path, resume=True)
    model = train(sections, **options, folder=tmp_path, resume=True)
    assert same(model, whole)
    assert model.history.equals(whole.history)
    opened = sw.models.Whisperer.load(tmp_path / "model")
    assert opened.config.training == whole.config.training


OPTIONS: dict[str, Any] = {"preset": {"schedule": "joint"}, "trainer": {"accelerator": "cpu"}}


@pytest.fixture(scope="module")
def finished(simulated: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run."""
    folder = tmp_path_factory.mktemp("finished")
    train(simulated.reference, preset=preset(**OPTIONS["preset"]), trainer=OPTIONS["trainer"], folder=folder)
    return folder


def other_captions(table: Any) -> None:
    names = table.obs["text"].astype(object)
    first, second = names.unique()[:2]
    table.obs["text"] = names.replace({first: second, second: first})


def other_counts(table: Any) -> None:
    table.X[0, 0] += 1


def other_patient(table: Any) -> None:
    table.obs["patient"] = table.obs["patient"].astype(str).where(np.arange(table.n_obs) > 0, "new")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"random_state": 7}, r"\n- random_state: 0 before, 7 now"),
        ({"preset": {"learning_rate": 0.5}}, r"\n- preset.joint.learning_rate: 0.001 before, 0.5 now"),
        ({"preset": {"batch_size": 64}}, r"\n- preset.joint.batch_size: 128 before, 64 now"),
        ({"preset": {"dropout": {"gene": 0.5}}}, r"\n- preset.joint.dropout"),
        ({"trainer": {"precision": "bf16-mixed"}}, r'\n- trainer.precision: "32-true" before, "bf16-mixed" now'),
        ({"trainer": {"accumulate_grad_batches": 2}}, r"\n- trainer.accumulate_grad_batches: nothing before, 2 now"),
        ({"validation": "R1"}, r'\n- validation_groups: \[\] before, \["R1"\] now'),
        ({"gene": sw.tl.GeneFeatures(options={"n_latent": 9})}, r"\n- features_asked.gene.options.n_latent: "),
        (other_captions, r"\n- captions.first: "),
        (other_counts, r'\n- data.inputs.gene: "250 × 32 float32, sha256 \w+" before, ".*" now\n'),
        (other_patient, r"\n- data.groups: "),
    ],
)
def test_another_run_is_not_resumed(simulated: Any, finished: Path, changes: Any, message: str) -> None:
    table = simulated.reference.copy()
    how: dict[str, Any] = {k: dict(v) for k, v in OPTIONS.items()}
    stored = {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()}
    if callable(changes):
        changes(table)
        changes = {}
    how |= {k: {**how[k], **v} if k in how else v for k, v in changes.items()}
    with pytest.raises(ValueError, match=rf"(?s)holds another run, and resume=True continues the same .*{message}"):
        train(table, **how | {"preset": preset(**how["preset"])}, folder=finished, resume=True)
    assert {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()} == stored


def test_other_arguments_are_refused_before_features_are_computed(simulated: Any, tmp_path: Path) -> None:
    train(simulated.reference, folder=tmp_path, gene="pca")
    broken = simulated.reference.copy()
    broken.X = broken.X * 0.5
    with pytest.raises(ValueError, match=r"random_state: 0 before, 1 now\n\(The data were not compared yet"):
        train(broken, folder=tmp_path, gene="pca", random_state=1, resume=True)
    with pytest.raises(ValueError, match="raw counts"):
        train(broken, folder=tmp_path, gene="pca", resume=True)


def test_what_shapes_no_numbers_may_change_when_a_run_is_resumed(simulated: Any, tmp_path: Path) -> None:
    how: dict[str, Any] = {
        "preset": preset(schedule="joint"),
        "folder": tmp_path / "run",
    }
    model = train(simulated.reference, **how, max_epochs=2)
    (tmp_path / "run").rename(tmp_path / "moved")
    quiet = {"enable_progress_bar": False, "callbacks": [stop_at(99)]}
    resumed = train(
        simulated.reference, **how | {"folder": tmp_path / "moved"}, max_epochs=2, resume=True, trainer=quiet
    )
    assert same(model, resumed)


def test_a_run_without_a_folder_leaves_only_the_model(simulated: Any) -> None:
    model = train(simulated.reference)
    assert model.folder is not None
    assert model.folder.is_relative_to(sw.settings.cache_dir.resolve())
    assert [path.name for path in model.folder.parent.iterdir()] == ["model"]


# ------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({"pairs": [("image", "text")]}, {}, "No object holds image–text pairs"),
        ({"pairs": [("gene", "text")]}, {"text": sw.tl.TextFeatures(key="note")}, "No object holds gene–text pairs"),
        ({"schedule": "sequential", "pairs": [("image", "gene")]}, {}, "needs pairs of that modality"),
        ({"locking": "LLU"}, {"image": sw.tl.ImageFeatures(key="X_stain_texture")}, "Give the one or the other"),
        ({"locking": "ULL"}, {"gene": "pca"}, "no weights to train|cannot be trained"),
        (
            {"locking": "LLU"},
            {"image": sw.tl.ImageFeatures("stain_texture", tile_um=80, tile_px=64)},
            "has no weights to train",
        ),
        ({}, {"preset": "clip"}, "Unknown preset 'clip'; choose one of whisperer"),
        ({}, {"resume": True}, "needs folder="),
        ({}, {"max_epochs": 0}, "max_epochs must be a positive whole number"),
        ({}, {"validation": "P9"}, "groups that are not there: P9"),
        ({}, {"gene": "identity"}, "use it with expression=True"),
    ],
)
def test_what_train_refuses(
    objects: list[Any], changes: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(objects, **{"preset": preset(**changes)} | arguments)


def test_nothing_to_train_on() -> None:
    with pytest.raises(ValueError, match="No data to train on"):
        sw.tl.train([])
    with pytest.raises(FileNotFoundError, match=r"P1 holds no corpus.*sw\.pp\.build_corpus"):
        sw.tl.train("P1")


def test_an_unknown_argument_of_the_trainer_is_refused_before_the_data_are_read() -> None:
    with pytest.raises(TypeError, match="Did you mean max_epochs"):
        sw.tl.train([], trainer={"epochs": 3})
    with pytest.raises(TypeError, match=r"pass it as sw\.tl\.train\(…, max_epochs=…\)"):
        sw.tl.train([], trainer={"max_epochs": 3})


# ------------------------------------------------------------------------------------------------- what is written


def test_features_that_are_computed_are_stored_in_the_objects(simulated: Any, model: Any) -> None:
    section = copy(simulated.sections["P1"], features=False)
    train([section, simulated.reference])
    stored = simulated.sections["P1"]["table"].obsm["X_stain_texture"]
    assert np.array_equal(section["table"].obsm["X_stain_texture"], stored)
    assert model.config.modalities["image"].feature_dim == stored.shape[1]


@pytest.mark.slow
def test_a_failed_call_writes_no_features(simulated: Any) -> None:
    """An error late in the preparation, when the features are computed, leaves no object with features."""
    sections = [copy(simulated.sections[name], features=False) for name in ("P1", "P2")]
    data = [*sections, simulated.reference]
    first = sections[0]["table"]
    first.layers["corrected"] = first.X.astype(np.float32)
    expression = sw.tl.ExpressionOptions(genes=list(first.var_names[:3]), values_layer="corrected")
    with pytest.raises(KeyError, match=r"values_layer='corrected' not in \.layers of object 1"):
        train(data, expression=expression)
    with pytest.raises(ValueError, match="encoder"):
        train(data, text="no such encoder")
    for section in sections:
        assert "X_stain_texture" not in section["table"].obsm
        assert "spatialwhisperer" not in section["table"].uns


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("trainer", 7, TypeError),
        ("trainer", {1: 2}, TypeError),
        ("max_epochs", 2.5, ValueError),
        ("max_epochs", True, ValueError),
        ("random_state", -1, ValueError),
        ("random_state", "a", ValueError),
        ("group_key", 7, TypeError),
        ("validation", {"a": 1}, TypeError),
        ("folder", 7, TypeError),
        ("folder", "a\0b", ValueError),
        ("resume", "no", TypeError),
        ("expression", "yes", TypeError),
    ],
)
def test_arguments_are_checked_before_the_data_are_looked_at(argument: str, value: Any, error: type[Exception]) -> None:
    wrong: Any = {argument: value}
    with pytest.raises(error, match=f"^{argument} must"):
        sw.tl.train([], **wrong)


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (sw.tl.ImageFeatures, {"tile_um": -1}),
        (sw.tl.ImageFeatures, {"tile_px": 2.5}),
        (sw.tl.ImageFeatures, {"pretrained": "no"}),
        (sw.tl.GeneFeatures, {"layer": 7}),
        (sw.tl.GeneFeatures, {"options": [1]}),
        (sw.tl.TextFeatures, {"key": 7}),
        (sw.tl.ExpressionOptions, {"genes": 7}),
        (sw.tl.ExpressionOptions, {"cross_validate": "no"}),
        (sw.tl.Hierarchy, {"rollup": "no"}),
    ],
)
def test_options_are_checked_where_they_are_made(options: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{next(iter(wrong))} must be"):
        options(**wrong)


def test_the_default_preset_is_our_own_with_a_gene_encoder_that_suits_the_number_of_rows(
    simulated: Any, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = [simulated.sections["P1"], simulated.reference]
    image = sw.tl.ImageFeatures(tile_um=80, tile_px=64)
    few = sw.tl.train(data, image=image, expression=False)
    assert few.config.training is not None
    assert (few.config.training.preset, few.config.modality("gene").features.name) == ("whisperer", "pca")
    assert "370 rows are too few for scVI" in capfd.readouterr().err
    monkeypatch.setattr(readers, "FEWEST_ROWS", 300)
    monkeypatch.setattr(readers, "SEEN_ROWS", 370 * 5)
    more = sw.tl.train(data, image=image, expression=False)
    assert more.config.modality("gene").features.name == "scvi"
    assert "scVI, 5 epochs over 370 rows" in capfd.readouterr().err
