from __future__ import annotations

import random
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix

import spatialwhisperer as sw

FEW = {"max_epochs": 3, "batch_size": 64}


def weights(model: Any) -> dict[str, torch.Tensor]:
    return model.state_dict()


def same(a: Any, b: Any) -> bool:
    return all(torch.equal(x, y) for x, y in zip(weights(a).values(), weights(b).values(), strict=True))


@pytest.fixture(scope="module")
def objects(simulated: Any) -> list[Any]:
    return [simulated.sections["P1"], simulated.sections["P2"], simulated.reference]


# ------------------------------------------------------------------------------------------------- what comes out


def test_default_training_of_few_pairs(model: Any, run_folder: Any) -> None:
    training = model.config["training"]
    assert training["schedule"] == "sequential"
    assert training["image_link"] == "ridge"
    assert training["pairs"] == {"image–gene": 240, "gene–text": 250}
    assert training["groups"] == ["P1", "P2", "R1", "R2"]
    assert model.modalities == ("gene", "image", "text")
    assert len(model.labels) == 5
    assert not model.training
    assert model.folder == run_folder.resolve() / "model"
    first = model.history.query("phase == 'gene-text'")
    assert first["loss"].iloc[-1] < first["loss"].iloc[0]
    assert (run_folder / "phases" / "gene-text" / "last.ckpt").is_file()
    assert "240 image–gene" in repr(model)


def test_it_says_which_schedule_it_chose(objects: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    sw.tl.train(objects, max_epochs=1)
    assert "240 image–gene pairs" in capsys.readouterr().err
    joint = sw.tl.train(objects, max_epochs=1, schedule="joint")
    assert "schedule" not in capsys.readouterr().err
    assert joint.config["training"]["schedule"] == "joint"
    assert joint.config["projection_dim"] == 512
    assert set(joint.history["phase"]) == {"joint"}


def test_the_process_keeps_its_random_state(objects: list[Any]) -> None:
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    sw.tl.train(
        objects, **FEW, schedule="joint", locking="LLu", image_encoder="test_resnet.r160_in1k", tile_um=80, tile_px=32
    )
    after = random.getstate(), np.random.get_state()[1], torch.get_rng_state()  # noqa: NPY002
    assert before[0] == after[0]
    assert np.array_equal(before[1], after[1])
    assert torch.equal(before[2], after[2])


@pytest.mark.parametrize("schedule", ["joint", "sequential"])
def test_the_seed_decides(objects: list[Any], schedule: Any) -> None:
    torch.manual_seed(1)
    first = sw.tl.train(objects, **FEW, schedule=schedule, random_state=4)
    torch.manual_seed(2)
    again = sw.tl.train(objects, **FEW, schedule=schedule, random_state=4)
    other = sw.tl.train(objects, **FEW, schedule=schedule, random_state=5)
    assert same(first, again)
    assert not same(first, other)


def test_weights_of_pairs(objects: list[Any]) -> None:
    pairs = {("image", "gene"): 3.0, ("gene", "text"): 1.0}
    history = sw.tl.train(objects, pairs=pairs, **FEW, schedule="joint").history
    # the logged values are those of the last batch of an epoch, so the identity holds row by row
    expected = (3 * history["loss_image_gene"] + history["loss_gene_text"]) / 4
    assert np.allclose(history["loss"], expected, atol=1e-5)


def test_one_pair_alone_and_a_mapping_of_sections(simulated: Any) -> None:
    model = sw.tl.train(simulated.reference, **FEW)
    assert model.modalities == ("gene", "text")
    sections = {name: simulated.sections[name] for name in ("P1", "P2")}
    model = sw.tl.train(sections, **FEW)
    assert model.modalities == ("gene", "image")
    assert model.config["training"]["schedule"] == "joint"


# ------------------------------------------------------------------------------------------------- rows without a modality


def test_rows_without_a_modality_never_reach_its_head(objects: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Running statistics of each batch norm are those of the present rows alone."""
    from spatialwhisperer.networks.heads import BatchNormShortcut

    seen: dict[int, list[np.ndarray]] = {}
    forward = BatchNormShortcut.forward

    def watch(self: BatchNormShortcut, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            seen.setdefault(x.shape[1], []).append(x.detach().numpy().copy())
        return forward(self, x)

    monkeypatch.setattr(BatchNormShortcut, "forward", watch)
    # one step without learning, half of it with images and half with captions, so that the statistics can be computed by hand
    model = sw.tl.train(objects, schedule="joint", max_epochs=1, batch_size=490, learning_rate=0.0)
    rows = {m: sum(map(len, seen[head["in_dim"]])) for m, head in model.config["heads"].items()}
    assert rows == {"image": 245, "text": 245, "gene": 490}
    for modality, head in model.config["heads"].items():
        bn = model.heads[modality].nonlinear[1]
        hidden = model.heads[modality].nonlinear[0](torch.from_numpy(seen[head["in_dim"]][0]))
        assert int(bn.num_batches_tracked) == 1
        assert torch.allclose(bn.running_mean, 0.1 * hidden.mean(0), atol=1e-5)
        assert torch.allclose(bn.running_var, 0.9 + 0.1 * hidden.var(0), atol=1e-5)


def test_incomplete_image_rows_are_left_out(simulated: Any) -> None:
    table = simulated.sections["P1"]["table"].copy()
    del table.uns["spatialdata_attrs"]
    table.obsm["X_given"] = table.obsm["X_stain_texture"].copy()
    table.obsm["X_given"][:20] = np.nan
    model = sw.tl.train([table, simulated.reference], image_features="X_given", **FEW)
    assert model.config["training"]["pairs"] == {"image–gene": 100, "gene–text": 250}
    assert model.config["encoders"]["image"]["slot"] == "X_given"


# ------------------------------------------------------------------------------------------------- groups


def test_validation_is_by_group(objects: list[Any]) -> None:
    model = sw.tl.train(objects, validation=["P2", "R2"], **FEW, schedule="joint")
    training = model.config["training"]
    assert training["groups"] == ["P1", "R1"]
    assert training["validation_groups"] == ["P2", "R2"]
    assert training["pairs"]["image–gene"] == 120
    assert model.history["val_loss"].notna().all()
    assert {"val_loss_image_gene", "val_loss_gene_text"} <= set(model.history)
    share = sw.tl.train(objects, validation=0.5, **FEW, random_state=1).config["training"]
    assert len(share["groups"]) == len(share["validation_groups"]) == 2
    assert not set(share["groups"]) & set(share["validation_groups"])


def test_held_out_rows_do_not_shape_the_model(objects: list[Any], simulated: Any) -> None:
    """What a held-out patient looks like changes nothing that is learnt."""
    changed = simulated.reference.copy()
    held_out = (changed.obs["patient"] == "R2").to_numpy()
    counts = changed.X.toarray()
    counts[held_out] = np.random.default_rng(0).poisson(3, (int(held_out.sum()), changed.n_vars))
    changed.X = csr_matrix(counts)
    a = sw.tl.train(objects, validation="R2", **FEW)
    b = sw.tl.train([*objects[:2], changed], validation="R2", **FEW)
    assert same(a, b)
    assert np.array_equal(a.gene_encoder.tensors()["mean"], b.gene_encoder.tensors()["mean"])


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        ("P9", "groups that are not there: P9"),
        (["P1", "P2", "R1", "R2"], "names every group"),
        (1.5, "a share between 0 and 1"),
        (0.9, "leaves none to train on"),
        (["R1", "R2"], "Too few pairs to train on: 0 gene–text"),
    ],
)
def test_bad_validation(objects: list[Any], validation: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sw.tl.train(objects, validation=validation)


# ------------------------------------------------------------------------------------------------- towers


@pytest.fixture(scope="module")
def tiny_text(tmp_path_factory: pytest.TempPathFactory, labels: dict[str, str]) -> str:
    """A random BERT of 16 dimensions over the words of the captions, as a local folder."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny_text")
    words = sorted({w for caption in labels.values() for w in caption.lower().replace("-", " - ").split()})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    network = BertModel(BertConfig(vocab_size=len(vocabulary), **sizes))
    network.save_pretrained(folder, safe_serialization=True)
    return str(folder)


class Watch:
    """Keeps a weight of a tower, and its mode, after every step."""

    def __init__(self, modality: str) -> None:
        from lightning.pytorch.callbacks import Callback

        seen = self.seen = []

        class Keep(Callback):
            def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:  # noqa: ARG002
                tower = pl_module.model.towers[modality]
                seen.append((next(tower.parameters()).detach().clone(), tower.training))

        self.callback = Keep()


def test_a_text_tower_rests_in_the_warm_up_and_then_moves(objects: list[Any], tiny_text: str, tmp_path: Any) -> None:
    from safetensors.torch import load_file

    watch = Watch("text")
    options = {"text_encoder": tiny_text, "locking": "LUL", "schedule": "joint", "random_state": 0}
    model = sw.tl.train(objects, **options, max_epochs=10, batch_size=64, callbacks=watch.callback)
    n = len(watch.seen)
    warm = max(1, round(0.03 * n))
    values = [value for value, _ in watch.seen]
    assert all(torch.equal(values[0], v) for v in values[:warm])
    assert not torch.equal(values[0], values[warm])
    assert not torch.equal(values[0], values[-1])
    assert torch.equal(values[0], load_file(f"{tiny_text}/model.safetensors")["embeddings.word_embeddings.weight"])
    assert [mode for _, mode in watch.seen] == [False] * warm + [True] * (n - warm)
    assert model.config["towers"] == {"text": {"kind": "huggingface"}}
    folder = model.save(tmp_path / "m")
    opened = sw.models.Whisperer.load(folder)
    texts = ["fat tissue", "T lymphocytes of an immune infiltrate"]
    assert np.array_equal(opened.project("text", texts), model.project("text", texts))


def test_an_image_tower_end_to_end(objects: list[Any], section: Any, labels: dict[str, str], tmp_path: Any) -> None:
    options = {"image_encoder": "test_resnet.r160_in1k", "locking": "LLu", "tile_um": 80, "tile_px": 32}
    model = sw.tl.train(objects, **options, max_epochs=2, batch_size=64)
    assert model.config["training"]["image_link"] == "contrastive"
    assert set(model.history["phase"]) == {"gene-text", "image-gene"}
    assert model.config["encoders"]["image"]["tile_um"] == 80
    sw.tl.zero_shot_annotate(section, labels, model=model)
    z = section["table"].obsm["X_sw_image"]
    assert np.allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)
    assert np.allclose(sw.tl.embed(section, model=model, batch_size=7, inplace=False), z, atol=1e-5)
    opened = sw.models.Whisperer.load(model.save(tmp_path / "m"))
    assert np.array_equal(sw.tl.embed(section, model=opened, inplace=False), z)


def test_a_tower_of_the_callers_own(objects: list[Any], section: Any, tmp_path: Any) -> None:
    def network() -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 5, stride=4), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
        )

    model = sw.tl.train(objects, image_encoder=network(), locking="LLu", tile_um=80, tile_px=32, **FEW)
    z = sw.tl.embed(section, model=model, inplace=False)
    folder = model.save(tmp_path / "m")
    with pytest.raises(ValueError, match=r"Pass it: Whisperer\.load\(folder, towers="):
        sw.models.Whisperer.load(folder)
    opened = sw.models.Whisperer.load(folder, towers={"image": network()})
    assert np.array_equal(sw.tl.embed(section, model=opened, inplace=False), z)


@pytest.mark.slow
def test_a_gene_tower_over_scvi(objects: list[Any], section: Any, tmp_path: Any) -> None:
    encoder = sw.pp.fit_gene_encoder(objects[2], "scvi", n_latent=6, max_epochs=2)
    before = encoder.encode(np.ones((2, len(encoder.genes)), np.float32))
    model = sw.tl.train(objects, gene_encoder=encoder, locking="uLL", **FEW)
    assert model.config["training"]["image_link"] == "ridge"
    z = sw.tl.embed(section, model=model, modality="gene", inplace=False)
    assert np.allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)
    assert np.array_equal(encoder.encode(np.ones((2, len(encoder.genes)), np.float32)), before)
    opened = sw.models.Whisperer.load(model.save(tmp_path / "m"))
    assert np.array_equal(sw.tl.embed(section, model=opened, modality="gene", inplace=False), z)


# ------------------------------------------------------------------------------------------------- interruption


def stop_after(epochs: int) -> Any:
    from lightning.pytorch.callbacks import Callback

    class Stop(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
            if trainer.current_epoch == epochs:
                raise KeyboardInterrupt

    return Stop()


@pytest.mark.parametrize("schedule", ["joint", "sequential"])
def test_an_interrupted_run_continues(objects: list[Any], tmp_path: Any, schedule: Any) -> None:
    import signal

    options = {"schedule": schedule, "max_epochs": 6, "batch_size": 64}
    whole = sw.tl.train(objects, **options)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="resume=True"):
        sw.tl.train(objects, **options, folder=tmp_path / "run", callbacks=[stop_after(4)])
    assert signal.getsignal(signal.SIGINT) is handler
    first = "joint" if schedule == "joint" else "gene-text"
    assert (tmp_path / "run" / "phases" / first / "last.ckpt").is_file()
    with pytest.raises(FileExistsError, match="resume=True"):
        sw.tl.train(objects, **options, folder=tmp_path / "run")
    model = sw.tl.train(objects, **options, folder=tmp_path / "run", resume=True)
    assert model.history["epoch"].tolist() == whole.history["epoch"].tolist()
    assert model.history["step"].tolist() == whole.history["step"].tolist()
    assert np.allclose(model.history["loss"].iloc[:4], whole.history["loss"].iloc[:4])
    if schedule == "joint":  # no dropout: the continued run is the whole run
        assert np.allclose(model.history["loss"], whole.history["loss"], atol=1e-4)
        assert all(
            torch.allclose(a, b, atol=1e-4)
            for a, b in zip(weights(model).values(), weights(whole).values(), strict=True)
        )


def test_a_resumed_tower_does_not_rest_again(objects: list[Any], tiny_text: str, tmp_path: Any) -> None:
    options = {"text_encoder": tiny_text, "locking": "LUL", "schedule": "joint", "max_epochs": 6, "batch_size": 64}
    with pytest.raises(KeyboardInterrupt):
        sw.tl.train(objects, **options, folder=tmp_path, callbacks=[stop_after(3)])
    watch = Watch("text")
    sw.tl.train(objects, **options, folder=tmp_path, resume=True, callbacks=[watch.callback])
    assert all(mode for _, mode in watch.seen)


def test_the_last_checkpoint_is_that_of_the_last_step(objects: list[Any], tmp_path: Any) -> None:
    """25 epochs are no multiple of the two between checkpoints."""
    model = sw.tl.train(objects, schedule="joint", max_epochs=25, batch_size=256, folder=tmp_path)
    checkpoint = torch.load(tmp_path / "phases" / "joint" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == model.history["step"].iloc[-1]
    for name, value in weights(model).items():
        assert torch.equal(checkpoint["state_dict"][f"model.{name}"], value)
    # a finished run that is resumed stays as it is
    again = sw.tl.train(objects, schedule="joint", max_epochs=25, batch_size=256, folder=tmp_path, resume=True)
    assert same(model, again)
    pd.testing.assert_frame_equal(model.history, again.history)


# ------------------------------------------------------------------------------------------------- several ranks


_RANKS = """
import sys
import numpy as np
import torch
from spatialwhisperer.models import PairLoss, Recipe, Whisperer
from spatialwhisperer.training.batches import Items
from spatialwhisperer.training.fit import Phase, Run, fit_phase, trainer_options

devices, strategy, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.set_num_threads(1)
torch.manual_seed(0)
rng, n = np.random.default_rng(0), 64
inputs = {m: rng.normal(size=(n, d)).astype(np.float32) for m, d in (("image", 6), ("gene", 5), ("text", 4))}
# three kinds of rows, so that a rank may miss a modality in a small batch
index = {m: np.arange(n) for m in inputs}
index["image"] = np.where(np.arange(n) < 40, np.arange(n), -1)
index["text"] = np.where(np.arange(n) < 40, -1, np.arange(n))
items = Items(inputs, index, np.arange(n), np.full(n, "a"))
heads = {m: {"kind": "linear_norm", "in_dim": x.shape[1]} for m, x in inputs.items()}
model = Whisperer({"projection_dim": 8, "heads": heads})
kinds = dict.fromkeys(heads, "linear_norm")
recipe = Recipe(kinds, 8, 1e-2, 1e-5, 0.0, (0.9, 0.98), 0.1, 0.1, 32 // devices, 3, 1)
run = Run(recipe, PairLoss(), 3, 0, __import__("pathlib").Path(folder), trainer_options("cpu", devices, strategy, "32-true", {}))
pairs = {("image", "gene"): 1.0, ("gene", "text"): 1.0}
history = fit_phase(model, items, items, Phase("p", pairs, frozenset(heads)), run)
model.save(folder + "/model")
history.to_csv(folder + "/out.csv")
"""


@pytest.mark.slow
def test_two_ranks_train_like_one(tmp_path: Any) -> None:
    """The same global batches give the same loss and the same weights: negatives are gathered from all ranks."""
    import subprocess
    import sys

    (tmp_path / "ranks.py").write_text(_RANKS)
    for devices, strategy in (("1", "auto"), ("2", "ddp_fork")):
        folder = tmp_path / devices
        command = [sys.executable, str(tmp_path / "ranks.py"), devices, strategy, str(folder)]
        subprocess.run(command, check=True, timeout=240, capture_output=True)
    one, two = (sw.models.Whisperer.load(tmp_path / d / "model") for d in "12")
    assert all(
        torch.allclose(a, b, atol=1e-5) for a, b in zip(weights(one).values(), weights(two).values(), strict=True)
    )
    losses = [pd.read_csv(tmp_path / d / "out.csv")["loss"] for d in "12"]
    assert np.allclose(*losses, atol=1e-5)


# ------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"locking": "LUX"}, "three letters of L, U and u"),
        ({"locking": "LL"}, "found 'LL'"),
        ({"preset": "clip"}, "Unknown preset 'clip'; choose one of whisperer"),
        ({"pairs": [("image", "text")]}, "No object holds image–text pairs"),
        ({"pairs": [("image", "image")]}, "two of 'image', 'gene' and 'text'"),
        ({"pairs": [("gene", "protein")]}, "two of 'image', 'gene' and 'text'"),
        ({"pairs": {("image", "gene"): -1.0}}, "must not be negative"),
        ({"pairs": {("image", "gene"): 0.0}}, "No object holds"),
        ({"schedule": "both"}, "'joint' or 'sequential', not 'both'"),
        ({"schedule": "sequential", "pairs": [("image", "gene")]}, "needs image–gene and gene–text pairs"),
        ({"schedule": "joint", "image_link": "ridge"}, "applies to schedule='sequential'"),
        ({"image_link": "lasso"}, "'ridge' or 'contrastive', not 'lasso'"),
        ({"image_link": "ridge", "locking": "LLU"}, "needs frozen image features"),
        ({"image_features": "X_stain_texture", "locking": "LLU"}, "Give the one or the other"),
        ({"gene_encoder": "pca", "locking": "ULL"}, "cannot be trained; use gene_encoder='scvi'"),
        ({"image_encoder": "stain_texture", "locking": "LLU"}, "has no weights to train"),
        ({"text_key": "note"}, "No object holds gene–text pairs|captions|text"),
        ({"resume": True}, "needs folder="),
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"max_epochs": 0}, "max_epochs must be at least 1"),
        ({"projection_dim": 0}, "projection_dim must be at least 1"),
        ({"learning_rate": -1.0}, "learning_rate must not be negative"),
    ],
)
def test_what_train_refuses(objects: list[Any], arguments: dict[str, Any], message: str) -> None:
    if arguments.get("text_key"):
        arguments = arguments | {"pairs": [("gene", "text")]}
    with pytest.raises(ValueError, match=message):
        sw.tl.train(objects, **arguments)


def test_nothing_to_train_on() -> None:
    with pytest.raises(ValueError, match="No data to train on"):
        sw.tl.train([])
    with pytest.raises(TypeError, match="not str"):
        sw.tl.train("P1")


def test_a_failed_call_writes_no_features(simulated: Any) -> None:
    """An error late in the preparation leaves no half of the objects with features."""
    import spatialdata as sd

    copies = []
    for name in ("P1", "P2"):
        s = simulated.sections[name]
        copies.append(sd.SpatialData(images=dict(s.images), shapes=dict(s.shapes), tables={"table": s["table"].copy()}))
        del copies[-1]["table"].obsm["X_stain_texture"]
        del copies[-1]["table"].uns["spatialwhisperer"]
    copies[1]["table"].obsm["X_stain_texture"] = np.zeros((120, 3), np.float32)
    with pytest.raises(ValueError, match="different widths"):
        sw.tl.train([*copies, simulated.reference], tile_um=80, tile_px=32)
    assert "X_stain_texture" not in copies[0]["table"].obsm
    assert "spatialwhisperer" not in copies[0]["table"].uns
    del copies[1]["table"].obsm["X_stain_texture"]
    with pytest.raises(ValueError, match="encoder"):
        sw.tl.train([*copies, simulated.reference], text_encoder="no such encoder")
    assert "X_stain_texture" not in copies[0]["table"].obsm
