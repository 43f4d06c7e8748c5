"""Training that is killed with SIGKILL at random moments and resumed until it ends.

Weights and history are those of a run that was never interrupted, to the last bit, with dropout and with tiles
that are augmented.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.torture.frame import Campaign, Trial

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

_KILLED = """
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import scipy.sparse
import torch

from spatialwhisperer.encoders.base import Encoder
from spatialwhisperer.encoders.recipe import FeatureRecipe
from spatialwhisperer.models.configuration.augmentation import Augmentation
from spatialwhisperer.models.configuration.model import HeadConfig, ModalityConfig, ModelConfig
from spatialwhisperer.models.joint_space import JointSpace
from spatialwhisperer.models.configuration.parts import PairLoss
from spatialwhisperer.models.presets.recipe import Recipe
from spatialwhisperer.training import augment, callbacks, lightning  # imported before the processes are forked, for speed
from spatialwhisperer.training.batches import Items
from spatialwhisperer.training.fit import Run, fit
from spatialwhisperer.training.trainer import trainer_options

folder, points, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
warnings.simplefilter("ignore")
rng, n = np.random.default_rng(0), 64
widths = {"image": 6, "gene": 5, "text": 4}
inputs = {m: rng.normal(size=(n, d)).astype(np.float32) for m, d in widths.items()}
inputs["image"] = rng.integers(0, 255, (n, 3, 8, 8), dtype=np.uint8)
index = {m: np.arange(n) for m in inputs}
items = Items(inputs, index, np.arange(n), np.full(n, "a"))
pairs = {("image", "gene"): 1.0, ("gene", "text"): 1.0}
heads = dict.fromkeys(widths, "bn_shortcut")
recipe = Recipe(heads, 8, 1e-2, 1e-5, 0.01, (0.9, 0.98), 0.1, 0.1, 16, 6, 1)


class Scaled(torch.nn.Module):
    def forward(self, x):
        return x.float() / 255


class Tower(Encoder):
    def encode(self, inputs, **options):
        raise NotImplementedError

    def module(self):
        return torch.nn.Sequential(Scaled(), torch.nn.Flatten(), torch.nn.Linear(192, 6))


def train(where):
    torch.manual_seed(0)
    modalities = {
        m: ModalityConfig(FeatureRecipe(None, m), d, HeadConfig(heads[m], d, 0.3), trained=m == "image")
        for m, d in widths.items()
    }
    model = JointSpace(ModelConfig(8, modalities), encoders={"image": Tower()})
    options = trainer_options({"accelerator": "cpu"})
    # two phases, and held-out items, so that a kill may come between them
    run = Run(
        recipe,
        PairLoss(),
        pairs,
        "gene",
        {"image": "u"},
        None,
        3,
        where / "phases",
        options,
        resume=True,
        augmentation=Augmentation(),
    )
    history = fit(model, items, items, run, schedule="sequential", image_link="contrastive").history
    sha = hashlib.sha256(history.to_csv().encode())
    for name, value in sorted(model.state_dict().items()):
        sha.update(name.encode() + value.numpy().tobytes())
    (where / "end").write_text(sha.hexdigest())


def child(where):
    where.mkdir(exist_ok=True)
    pid = os.fork()
    if pid == 0:
        try:
            train(where)
        finally:
            os._exit(0)
    return pid


# compiled before the processes are forked, for speed
augment.TileAugmenter(Augmentation(), 0)(inputs["image"][:1], 0, np.arange(1))
os.waitpid(child(folder / "first"), 0)
start = time.perf_counter()
os.waitpid(child(folder / "whole"), 0)
duration = time.perf_counter() - start
expected = (folder / "whole" / "end").read_text()

random.seed(seed)
for point in range(points):
    where, kills = folder / str(point), 0
    for _ in range(random.randint(1, 3)):
        pid = child(where)
        time.sleep(random.uniform(0.02, 0.9 * duration))
        os.kill(pid, signal.SIGKILL)
        kills += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    if not (where / "end").exists():
        os.waitpid(child(where), 0)
    left = [p.name for p in where.rglob("*") if p.name.startswith(".")]
    end = (where / "end").read_text() if (where / "end").exists() else "no end"
    print(json.dumps({"kills": kills, "same": end == expected, "end": end, "left": left}), flush=True)
    shutil.rmtree(where)
"""


def trials(rng: np.random.Generator, n: int) -> Iterator[Trial]:
    """Each run is killed one to three times, anywhere between its start and about its end."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "killed.py").write_text(_KILLED)
        command = [sys.executable, str(folder / "killed.py"), name, str(n), str(rng.integers(2**31))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            if process.stdout is None:
                raise RuntimeError("the process has no output")
            for line in process.stdout:
                yield _judged(json.loads(line))
        if process.returncode:
            yield Trial("", f"the process that kills ended with {process.returncode}")


def _judged(run: dict[str, object]) -> Trial:
    """A run that ended before it was killed is one that was never interrupted."""
    outcome = "same to the last bit"
    if not run["same"]:
        return Trial(outcome, f"after {run['kills']} kills another end: {run['end']}")
    return Trial(outcome, f"files were left: {run['left']}" if run["left"] else "")


CAMPAIGN = Campaign("training killed and resumed", trials, bounded=12, long=60)
