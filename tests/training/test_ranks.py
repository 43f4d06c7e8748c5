"""Several processes train like one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.training.forked import Forked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_RANKS = '''
import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from spatialwhisperer._access.images import Level, RasterImage
from spatialwhisperer._access.sections.scale import Scale
from spatialwhisperer._access.sections.section import Section
from spatialwhisperer._access.tiles.lazy import LazyTiles
from spatialwhisperer._access.tiles.reader import TileReader
from spatialwhisperer.encoders.base import Encoder
from spatialwhisperer.encoders.recipe import FeatureRecipe
from spatialwhisperer.models.configuration.augmentation import Augmentation
from spatialwhisperer.models.configuration.model import HeadConfig, ModalityConfig, ModelConfig
from spatialwhisperer.models.joint_space import JointSpace
from spatialwhisperer.models.configuration.parts import PairLoss
from spatialwhisperer.models.presets.recipe import Recipe
from spatialwhisperer.training.batches import Items, ShuffledBatches
from spatialwhisperer.training.fit import Phase, Run, fit_phase
from spatialwhisperer.training.trainer import trainer_options

torch.set_num_threads(1)
PAIRS = {("image", "gene"): 1.0, ("gene", "text"): 1.0}


class Tower(Encoder):
    """A trained encoder of text features."""

    def __init__(self):
        torch.manual_seed(1)
        self.layer = torch.nn.Linear(4, 4)

    def encode(self, inputs, **options):
        raise NotImplementedError

    def module(self):
        return self.layer

    def collate(self, inputs):
        return torch.as_tensor(np.asarray(inputs))


class TileTower(Tower):
    """A trained encoder of tiles."""

    def __init__(self):
        torch.manual_seed(1)
        self.layer = torch.nn.Sequential(Scaled(), torch.nn.Flatten(), torch.nn.Linear(192, 6))


class Scaled(torch.nn.Module):
    def forward(self, x):
        return x.float() / 255


def items(tiles):
    """40 rows of images and counts, 24 of counts and captions."""
    rng, n = np.random.default_rng(0), 64
    inputs = {m: rng.normal(size=(n, d)).astype(np.float32) for m, d in (("image", 6), ("gene", 5), ("text", 4))}
    index = {m: np.arange(n) for m in inputs}
    index["image"] = np.where(np.arange(n) < 40, np.arange(n), -1)
    index["text"] = np.where(np.arange(n) < 40, -1, np.arange(n) % 7)
    if tiles:
        inputs["image"] = chunked(np.random.default_rng(1).integers(0, 255, (3, 96, 96), dtype=np.uint8))
    return Items(inputs, index, np.arange(n), np.full(n, "a"))


def chunked(pixels):
    """40 tiles of an image in zarr, that are read when a batch needs them."""
    import dask.array as da
    import zarr

    stored = zarr.create_array({}, shape=pixels.shape, chunks=(3, 24, 24), dtype=pixels.dtype)
    stored[:] = pixels
    stored = da.from_zarr(stored)
    # threads of dask and zarr are there before the processes start
    assert (stored.compute() == pixels).all()
    raster = RasterImage("i", (Level(stored, 1.0, 1.0),), pixels.shape[1:])
    section = Section("s", np.arange(40), np.random.default_rng(2).uniform(0, 96, (40, 2)), raster, Scale(1.0, "test"))
    return LazyTiles([TileReader(section, tile_um=8, tile_px=8)], np.zeros(40, int), np.arange(40))


def train(
    folder,
    ranks,
    head="linear_norm",
    text_loss="info_nce",
    tower="L",
    trainer=None,
    batch=32,
    strategy="ddp_fork",
    epochs=3,
    tiles=False,
    resume=False,
):
    """Weights, which way they took, and losses."""
    given, trained = items(tiles), {} if tower == "L" else {"text": Tower()}
    if tiles:
        trained = {"image": TileTower()}
    torch.manual_seed(0)
    widths = {"image": 6, "gene": 5, "text": 4}
    modalities = {
        m: ModalityConfig(FeatureRecipe(None, m), d, HeadConfig(head, d), trained=m in trained)
        for m, d in widths.items()
    }
    model = JointSpace(ModelConfig(8, modalities), encoders=trained)
    before = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    recipe = Recipe(
        dict.fromkeys(given.inputs, head), 8, 1e-2, 1e-2, 0.01, (0.9, 0.98), 0.3, 0.1, batch // ranks, epochs, 1, text_loss=text_loss
    )
    options = trainer_options(
        {"accelerator": "cpu", "devices": ranks, "strategy": "auto" if ranks == 1 else strategy, **(trainer or {})}
    )
    unlocked = {m: tower for m in trained}
    run = Run(
        recipe, PairLoss(), PAIRS, "gene", unlocked, epochs, 0, Path(folder), options, resume, augmentation=Augmentation(rotation=9.0)
    )
    history = fit_phase(model, given, given, Phase("p", PAIRS, frozenset(given.inputs), unlocked), run)
    weights = torch.cat([x.double().flatten() for x in model.state_dict().values()])
    moved = torch.nn.utils.parameters_to_vector(model.parameters()).detach() - before
    return weights, moved, history


class Killed(Callback):
    """Ends the process, or the last of several, in the middle of the second epoch."""

    def __init__(self, by):
        self.by = getattr(signal, by)

    def on_train_batch_end(self, trainer, module, outputs, batch, number):
        if (trainer.current_epoch, number) == (1, 2) and trainer.global_rank == trainer.world_size - 1:
            os.kill(os.getpid(), self.by)


def in_child(function):
    """Call a function in a forked process and return how that ended."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1]


def killed_and_resumed(folder, by, **case):
    """The same from processes of which one is killed, and others that resume the run."""
    trainer = case.get("trainer") or {}
    killed = case | {"trainer": trainer | {"callbacks": [Killed(by)]}}
    path = Path(f"{folder}.pt")
    if case["ranks"] == 1:
        if not os.WIFSIGNALED(in_child(lambda: train(folder, **killed))):
            raise RuntimeError("the process was not killed")
    else:
        # every rank is a process of its own already
        start = time.perf_counter()
        try:
            train(folder, **killed)
        except RuntimeError as error:
            if f"terminated with signal {by}" not in str(error) or "resume=True" not in str(error):
                raise
        else:
            raise RuntimeError("a process was killed, and the run went on")
        if time.perf_counter() - start > 60:
            raise RuntimeError("the other process waited")
    left = [p.name for p in Path(folder, "p").glob("step-*.ckpt")]
    if len(left) != 1:
        raise RuntimeError(f"the run was not killed in its second epoch: {left}")
    if case["ranks"] > 1:
        return train(folder, **case, resume=True)
    if in_child(lambda: torch.save(train(folder, **case, resume=True), path)) != 0:
        raise RuntimeError("the run was not resumed to its end")
    return torch.load(path, weights_only=False)


def hand_made(self):
    """Batches of 16 with images i and captions t; the first half of each is that of the first of two ranks."""
    i, t = np.arange(40), np.arange(40, 64)
    batches = (
        [i[:8], t[:8]],  # a rank without images and one without captions
        [i[:7], t[:1], i[8:16]],  # one caption in all
        [i[:16]],  # no caption
        [i[:7], t[:1], t[7:8], i[8:15]],  # two captions, one on each rank
        [t[:16]],
    )
    return np.concatenate([x for batch in batches for x in batch])


def main(folder, cases):
    """Train both of each case."""
    folder, cases, results, done = Path(folder), json.loads(cases), [], {}
    for case in cases:
        if case.pop("hand_made", False):
            ShuffledBatches._order = hand_made
            ShuffledBatches.__len__ = lambda self: 5
        of = []
        for options in case.pop("sides"):
            key = json.dumps(case | options)
            if key not in done:
                begin = killed_and_resumed if "by" in options else train
                done[key] = begin(folder / str(len(done)), **case | options)
            of.append(done[key])
        (a, way, one), (b, other, two) = of
        losses = [c for c in one if c.startswith("loss")]
        results.append({
            "weights": float((a - b).abs().max()),
            "way": float((way - other).norm() / way.norm()),
            "losses": float((one[losses] - two[losses]).abs().max().max()),
            "names": losses,
        })
    (folder / "results.json").write_text(json.dumps(results))
'''

ONE, TWO = {"ranks": 1}, {"ranks": 2}


Compare = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forked]:
    with Forked(_RANKS, tmp_path_factory.mktemp("ranks")) as script:
        yield script


@pytest.fixture
def compare(forked: Forked, tmp_path: Path) -> Compare:
    """Train both sides of each case, all in one process of their own."""

    def compare(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
        log = tmp_path / "log"
        assert forked(log, tmp_path, json.dumps(cases)) == 0, log.read_text()[-3000:]
        found: list[dict[str, Any]] = json.loads((tmp_path / "results.json").read_text())
        return found

    return compare


@pytest.mark.slow
def test_two_ranks_train_like_one(compare: Compare) -> None:
    """The same pairs in a step give the same losses and weights: negatives, statistics of a batch norm and captions are gathered."""
    cases: list[dict[str, Any]] = [
        {},
        {"batch": 8},
        {"head": "bn_shortcut"},
        {"text_loss": "sigmoid"},
        {"tower": "U"},
        {"tower": "u"},
        {"tower": "U", "trainer": {"gradient_clip_val": 0.1}},
        {"head": "bn_shortcut", "text_loss": "sigmoid", "tower": "U", "trainer": {"accumulate_grad_batches": 2}},
        # the cases with batches that are made by hand come last
        {"batch": 16, "hand_made": True},
        {"batch": 16, "hand_made": True, "head": "bn_shortcut", "tower": "U"},
        {"batch": 16, "hand_made": True, "head": "bn_shortcut", "text_loss": "sigmoid", "tower": "u"},
    ]
    for case, found in zip(cases, compare([c | {"sides": [ONE, TWO]} for c in cases]), strict=True):
        assert found["names"] == ["loss", "loss_image_gene", "loss_gene_text"]
        assert found["weights"] < 1e-5, (case, found)
        assert found["losses"] < 1e-5, (case, found)


@pytest.mark.slow
def test_ranks_see_the_augmented_tiles_of_one_process(compare: Compare) -> None:
    """Tiles are read from zarr by threads of each rank, also where the ranks are forked."""
    small = {"tiles": True, "batch": 16, "epochs": 2}
    cases: list[dict[str, Any]] = [
        small | {"tower": "u", "sides": [ONE, TWO]},
        small | {"tower": "U", "text_loss": "sigmoid", "sides": [ONE, TWO]},
    ]
    for case, found in zip(cases, compare(cases), strict=True):
        assert found["weights"] < 1e-5, (case, found)
        assert found["losses"] < 1e-5, (case, found)


@pytest.mark.slow
def test_processes_that_are_spawned_get_everything_they_need(compare: Compare) -> None:
    small = {"tiles": True, "batch": 16, "epochs": 2}
    (found,) = compare([small | {"tower": "u", "sides": [ONE, TWO | {"strategy": "ddp_spawn"}]}])
    assert found["weights"] < 1e-5
    assert found["losses"] < 1e-5


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_run_which_resumes_to_the_same_model(compare: Compare) -> None:
    """The other rank does not wait for it, by whatever signal it ended, and an own error says how to go on."""
    case: dict[str, Any] = {"head": "bn_shortcut", "text_loss": "sigmoid", "batch": 16, "epochs": 2}
    ends = (("U", "SIGKILL"), ("u", "SIGKILL"), ("u", "SIGTERM"))
    cases = [case | {"tower": tower, "sides": [TWO, TWO | {"by": by}]} for tower, by in ends]
    for case, found in zip(cases, compare(cases), strict=True):
        assert found["weights"] == found["losses"] == 0, (case, found)


TOLERANCES = {"32-true": 1e-5, "64-true": 1e-5, "bf16-mixed": 0.05, "bf16-true": 0.2}
"""How far the weights end from those of the float32 run, relative to the length of its way."""


@pytest.mark.slow
@pytest.mark.parametrize("accumulated", [1, 4])
def test_precision_locking_ranks_and_kills_give_the_float32_run_of_one_process(
    compare: Compare, accumulated: int
) -> None:
    """Cells are trained straight on, and killed with SIGKILL within an epoch and resumed, which changes nothing at all.

    Of two ranks the second is killed, where the encoder thaws; the other locks are killed in a test of their own.
    """
    precisions = list(TOLERANCES) if accumulated == 1 else ["32-true", "bf16-mixed"]
    kinds = [(p, tower, ranks) for p in precisions for tower in ("L", "U", "u") for ranks in (1, 2)]
    cases = []
    for precision, tower, ranks in kinds:
        reference, straight = (
            {"ranks": n, "trainer": {"precision": p, "accumulate_grad_batches": accumulated}}
            for n, p in ((1, "32-true"), (ranks, precision))
        )
        case: dict[str, Any] = {"head": "bn_shortcut", "text_loss": "sigmoid", "tower": tower, "batch": 16, "epochs": 2}
        cases.append(case | {"sides": [reference, straight]})
        if ranks == 1 or tower == "U":
            cases.append(case | {"sides": [straight, straight | {"by": "SIGKILL"}]})
    for case, found in zip(cases, compare(cases), strict=True):
        if case["sides"][1].get("by"):
            assert found["weights"] == found["losses"] == 0, (case, found)
        else:
            assert found["way"] < TOLERANCES[case["sides"][1]["trainer"]["precision"]], (case, found)
