"""Training on a corpus: two processes are one, and a run that was killed in the middle of a pass is the same run."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.training.forked import Forked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_RUN = '''
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from spatialwhisperer.encoders.recipe import FeatureRecipe
from spatialwhisperer.models.configuration.model import HeadConfig, ModalityConfig, ModelConfig
from spatialwhisperer.models.joint_space import JointSpace
from spatialwhisperer.models.configuration.parts import PairLoss
from spatialwhisperer.models.presets.recipe import Recipe
from spatialwhisperer.training.corpus import order
from spatialwhisperer.training.corpus.batches import Standard
from spatialwhisperer.training.corpus.feed import CorpusFeed, training_statistics
from spatialwhisperer.training.corpus.shards import Corpus
from spatialwhisperer.training.fit import Phase, Run, run_phase
from spatialwhisperer.training.trainer import trainer_options

torch.set_num_threads(1)
order.PART_STEPS = 3
order.WINDOW_BLOCKS = 2
DIMS = {"gene": 5, "image": 6, "text": 4}
PAIRS = {("image", "gene"): 1.0, ("gene", "text"): 1.0}


class Killed(Callback):
    """Ends the process in the middle of the second part of the first pass."""

    def on_train_batch_end(self, trainer, module, outputs, batch, number):
        if (trainer.current_epoch, number) == (1, 1):
            os.kill(os.getpid(), signal.SIGKILL)


def train(corpus, folder, ranks=1, joined=False, head="bn_shortcut", text_loss="info_nce", killed=False, resume=False, dropout=0.0):
    corpus = Corpus.open(Path(corpus))
    standards = {"text": Standard("none", np.zeros(4), np.ones(4))}
    for m in ("gene", "image"):
        standards[m] = Standard("section", *training_statistics(corpus, m, DIMS[m], held_out=frozenset(), seed=0))
    torch.manual_seed(0)
    modalities = {m: ModalityConfig(FeatureRecipe(None, m), d, HeadConfig(head, d, dropout)) for m, d in DIMS.items()}
    model = JointSpace(ModelConfig(8, modalities))
    # a batch of 24 in all, on one process or two
    size = 12 if joined or ranks > 1 else 24
    recipe = Recipe(dict.fromkeys(DIMS, head), 8, 1e-2, 1e-2, 0.01, (0.9, 0.98), 0.1, 0.1, size, 2, 1, text_loss=text_loss)
    feed = CorpusFeed(
        corpus, DIMS, standards, tuple(PAIRS), frozenset({"P1"}), size, True, 0, joined=joined, lanes=2 if joined else None
    )
    given = {"accelerator": "cpu", "devices": ranks, "strategy": "auto" if ranks == 1 else "ddp_fork"}
    options = trainer_options(given | ({"callbacks": [Killed()]} if killed else {}))
    run = Run(recipe, PairLoss(), PAIRS, "gene", {}, 2, 0, Path(folder), options, resume)
    history = run_phase(model, feed, Phase("joint", PAIRS, frozenset(DIMS)), run)
    weights = {name: x.tolist() for name, x in model.state_dict().items()}
    return {"weights": weights, "history": history.to_dict("list"), "parts": feed.parts}


def main(corpus, folder, options, out):
    Path(out).write_text(json.dumps(train(corpus, folder, **json.loads(options))))
'''


Train = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forked]:
    with Forked(_RUN, tmp_path_factory.mktemp("runs")) as script:
        yield script


@pytest.fixture
def run(forked: Forked, folder: Path, tmp_path: Path) -> Train:
    """Train on the corpus in a process of its own, in a folder of that name."""

    def run(name: str, *, code: int = 0, **options: Any) -> dict[str, Any]:
        log, out = tmp_path / "log", tmp_path / "out.json"
        assert forked(log, folder, tmp_path / name, json.dumps(options), out) == code, log.read_text()[-3000:]
        return json.loads(out.read_text()) if code == 0 else {}

    return run


def apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Largest difference of two weights."""

    def flat(x: Any) -> list[float]:
        return [v for part in x for v in flat(part)] if isinstance(x, list) else [x]

    pairs = [
        (a, b)
        for name in one["weights"]
        for a, b in zip(flat(one["weights"][name]), flat(other["weights"][name]), strict=True)
    ]
    return max(abs(a - b) for a, b in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["info_nce", "sigmoid"])
def test_two_processes_are_one_on_the_joined_batch(run: Train, loss: str) -> None:
    one = run("one", joined=True, text_loss=loss)
    two = run("two", ranks=2, text_loss=loss)
    assert apart(one, two) < 1e-5
    losses = [name for name in one["history"] if name.startswith(("loss", "val_loss"))]
    assert {"loss", "loss_image_gene", "loss_gene_text", "val_loss"} <= set(losses)
    for name in losses:
        assert one["history"][name] == pytest.approx(two["history"][name], abs=1e-5)


@pytest.mark.slow
def test_a_run_that_is_killed_in_the_middle_of_a_pass_continues_to_the_same_model(run: Train) -> None:
    how: dict[str, Any] = {"head": "rmlp", "dropout": 0.2}
    whole = run("whole", **how)
    assert whole["parts"] > 1
    assert whole["history"]["epoch"] == sorted([0, 1] * whole["parts"])
    run("killed", code=-9, killed=True, **how)
    resumed = run("killed", resume=True, **how)
    assert apart(whole, resumed) == 0
    assert resumed["history"] == whole["history"]
