"""Figures of training beside the same figures before they were mended: docs/reliability.md has them as a table.

usage: python -m pytest benchmarks/training_points.py -q -s        (the ranks take a minute; -k "not ranks" leaves them out)

Each function prints a line; the tests that are named in the table hold the same to a tolerance.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from spatialwhisperer.models.presets.catalogue import PRESETS, get_preset
from spatialwhisperer.networks.losses import contrastive, positive_targets
from spatialwhisperer.retrieval.search import search
from spatialwhisperer.retrieval.vectors import Vectors
from spatialwhisperer.training.batches import ItemBatches
from spatialwhisperer.training.fit import fit
from tests.training.conftest import items, run, space  # noqa: F401
from tests.training.resuming.test_checkpoints import stop_at
from tests.training.test_lightning import step_losses, step_rates
from tests.training.test_ranks import ONE, TWO, compare
from tests.training.test_training_step import training

HOW: dict[str, Any] = {"schedule": "joint", "image_link": None}


def line(what: str, *values: float) -> None:
    print(f"\n{what}: {', '.join(f'{v:.2g}' for v in values)}", end="")


def test_history(items, space, run) -> None:  # noqa: F811
    losses, keep = step_losses()
    history = fit(space(), items, None, run({"callbacks": keep}), **HOW).history["loss"].to_numpy()
    means = np.array(losses).reshape(3, 4).mean(axis=1)
    line("history beside the mean of its epoch, relative", float(np.abs(history / means - 1).max()))


def test_copies() -> None:
    presets = [get_preset(name, protocol) for name in PRESETS for protocol in ("strict", "peer")]
    same = [pickle.loads(pickle.dumps(p)) == p == copy.deepcopy(p) for p in presets]
    line("presets that are pickled and copied, of all", sum(same), len(same))


@pytest.mark.parametrize("options", [{"accumulate_grad_batches": 4}, {"limit_train_batches": 2}, {"max_steps": 15}])
def test_schedule(items, space, run, options) -> None:  # noqa: F811
    seen, keep = step_rates()
    how = run({"callbacks": keep, **options}, warmup=0.0, final_learning_rate=0.05, learning_rate=1.0, max_epochs=10)
    fit(space(), items, None, how, **HOW)
    n = len(seen)
    due = 0.05 + 0.95 * 0.5 * (1 + np.cos(np.pi * (n - 1) / n))
    line(f"last rate with {options}, and due", seen[n - 1], due)


def test_resume(items, space, run, tmp_path) -> None:  # noqa: F811
    own = {"heads": dict.fromkeys(("image", "gene", "text"), "bn_shortcut"), "dropout": 0.3}
    whole, resumed = space(**own), space(**own)
    fit(whole, items, None, run(max_epochs=6), **HOW)
    folder = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        fit(space(**own), items, None, run({"callbacks": stop_at(3)}, max_epochs=6, folder=folder, resume=True), **HOW)
    fit(resumed, items, None, run(max_epochs=6, folder=folder, resume=True), **HOW)
    pairs = zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    line("resumed beside whole, with dropout", max(float((a.double() - b.double()).abs().max()) for a, b in pairs))


def test_float64() -> None:
    rng = np.random.default_rng(0)
    asks, bank = Vectors(rng.normal(size=(20, 4))), Vectors(rng.normal(size=(20_000, 4)))
    expected = search(asks, asks.rows, bank, 5, 8192, "cpu")[0]
    torch.set_default_dtype(torch.float64)
    try:
        found = search(asks, asks.rows, bank, 5, 8192, "cpu")[0]
    finally:
        torch.set_default_dtype(torch.float32)
    ids = torch.tensor([1, 1, 1])
    third = float(positive_targets(ids, ids, dtype=torch.float64)[0, 0]) - 1 / 3
    line("other neighbours under float64, and rounding of a third", float((found != expected).sum()), third)


@torch.no_grad()
def test_autocast(items, space, run) -> None:  # noqa: F811
    module = training(space(norm="none", temperature=1 / 30), run())
    batch = ItemBatches(items, {})[np.r_[0:8, 40:44]]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = module._loss(batch)[1]["image_gene"]
        z = {m: module.model.heads[m](batch[m]["x"]).float() for m in ("image", "gene")}
    scale, rows = module.model.log_scale.exp(), batch["row"][:8]
    exact = contrastive(z["image"], z["gene"][:8], scale, ids=rows)
    half = contrastive(z["image"].bfloat16(), z["gene"][:8].bfloat16(), scale.bfloat16(), ids=rows)
    line("loss under autocast beside float32, and in bfloat16", float(loss - exact), float(half - exact))


def test_temperature(items, space, run) -> None:  # noqa: F811
    model = space(temperature=1 / 200)
    fit(model, items, None, run(learn_temperature=True, learning_rate=1e-2), **HOW)
    line("scale that is learned from 200", model.scale)


def test_ranks(tmp_path) -> None:
    cases: list[dict[str, Any]] = [
        {"tower": "u"},
        {"tower": "U"},
        {"head": "bn_shortcut"},
        {"text_loss": "sigmoid"},
    ]
    for case, found in zip(cases, compare(tmp_path, [c | {"sides": [ONE, TWO]} for c in cases]), strict=True):
        line(f"two ranks beside one, {case}", found["weights"])
    precisions = ("64-true", "bf16-mixed", "bf16-true")
    sides = [[{"ranks": 1, "trainer": {"precision": p}} for p in ("32-true", precision)] for precision in precisions]
    (tmp_path / "p").mkdir()
    for precision, found in zip(
        precisions, compare(tmp_path / "p", [{"tower": "U", "sides": s} for s in sides]), strict=True
    ):
        line(f"way of the weights in {precision} beside 32-true", found["way"])
