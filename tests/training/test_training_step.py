"""The loss of one step and its gradient, on batches that are made by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.nn.functional import log_softmax, normalize, softplus

from spatialwhisperer.networks.losses import contrastive
from spatialwhisperer.training.batches import ItemBatches
from spatialwhisperer.training.fit import fit

if TYPE_CHECKING:
    from collections.abc import Callable

    from spatialwhisperer.models.joint_space import JointSpace
    from spatialwhisperer.training.batches import Items
    from spatialwhisperer.training.fit import Run

    Space = Callable[..., JointSpace]
    Runs = Callable[..., Run]

PAIRS = {("image", "gene"): 1.0, ("gene", "text"): 3.0}


def training(model: JointSpace, how: Run) -> Any:
    """A training module in training mode, on one process without a trainer."""
    from spatialwhisperer.training.lightning import ContrastiveTraining

    module: Any = ContrastiveTraining(
        model,
        pairs=PAIRS,
        recipe=how.recipe,
        loss=how.loss,
        train_heads=set(model.heads),
        unlocked={},
        total_steps=100,
    )
    module.trainer = SimpleNamespace(world_size=1, global_step=0)
    module.log = lambda *_, **__: None
    module.train()
    module._set_modes()
    return module


# ------------------------------------------------------------------------------------------------- by hand


def info_nce(a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor, ids: list[int]) -> torch.Tensor:
    """Mean over rows and columns of minus the mean log probability of the positives."""
    halves = []
    for logits in (scale * a @ b.T, scale * b @ a.T):
        of_rows = []
        for i, row in enumerate(log_softmax(logits, dim=1)):
            of_rows.append(-torch.stack([row[j] for j in range(len(ids)) if ids[j] == ids[i]]).mean())
        halves.append(torch.stack(of_rows).mean())
    return (halves[0] + halves[1]) / 2


def sigmoid(z: dict[int, Any], text: dict[int, Any], caption: Any, scale: torch.Tensor, bias: Any) -> torch.Tensor:
    """Mean over the captions of the mean of their positives and the mean of their negatives."""
    of_captions = []
    for c in sorted({int(caption[i]) for i in text}):
        embedded = next(text[i] for i in text if caption[i] == c)
        terms: dict[bool, list[Any]] = {True: [], False: []}
        for i in z:
            score = scale * z[i] @ embedded + bias
            terms[bool(caption[i] == c)].append(softplus(-score) if caption[i] == c else softplus(score))
        of_captions.append(torch.stack([torch.stack(t).mean() for t in terms.values() if t]).sum())
    return torch.stack(of_captions).mean()


def by_hand(module: Any, items: Items, rows: list[int]) -> dict[str, torch.Tensor]:
    """Loss of each pair that the rows hold."""
    model, scale = module.model, module.model.log_scale.exp()
    z: dict[str, dict[int, Any]] = {}
    for m, x in items.inputs.items():
        held = [i for i in rows if items.index[m][i] >= 0]
        # a single row is left out while its head is trained
        held = held if len(held) > 1 else []
        z[m] = {i: normalize(model.heads[m](torch.from_numpy(x[items.index[m][i]])), dim=0) for i in held}
    caption, losses = items.index["text"], {}
    for a, b in PAIRS:
        both = [i for i in z[a] if i in z[b]]
        if "text" in (a, b) and module.bias is not None:
            if z["gene"] and z["text"]:
                losses["gene_text"] = sigmoid(z["gene"], z["text"], caption, scale, module.bias)
        elif len(both) > 1:
            ids = [int(caption[i]) for i in both] if "text" in (a, b) else both
            losses[f"{a}_{b}"] = info_nce(
                torch.stack([z[a][i] for i in both]), torch.stack([z[b][i] for i in both]), scale, ids
            )
    return losses


def gradients(module: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    names, parameters = zip(*module.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for n, p, g in zip(names, parameters, found, strict=True)}


BOTH = {"image_gene", "gene_text"}
BATCHES = [
    ([0, 1, 2, 40, 41, 42], BOTH),
    # equal captions are positives of each other
    ([0, 1, 40, 44, 41], BOTH),
    # exactly two rows, one row and no row with a caption
    ([0, 1, 2, 40, 41], BOTH),
    ([0, 1, 2, 40], {"image_gene"}),
    ([0, 1, 2], {"image_gene"}),
    # exactly two images, one and none
    ([0, 1, 40, 41, 42], BOTH),
    ([0, 40, 41, 42], {"gene_text"}),
    ([40, 41, 42], {"gene_text"}),
    # no pair at all
    ([0, 40], set()),
]


@pytest.mark.parametrize("text_loss", ["info_nce", "sigmoid"])
@pytest.mark.parametrize(("rows", "expected"), BATCHES)
def test_the_loss_of_a_mixed_batch_is_that_by_hand(
    items: Items, space: Space, run: Runs, rows: list[int], expected: set[str], text_loss: str
) -> None:
    module = training(space(), run(text_loss=text_loss))
    check_step(module, items, rows, expected)


def check_step(module: Any, items: Items, rows: list[int], expected: set[str]) -> None:
    """Value and gradient of the loss, and of which pairs it is."""
    parts = by_hand(module, items, rows)
    weights = {f"{a}_{b}": w for (a, b), w in PAIRS.items()}
    total = torch.zeros((), requires_grad=True) + sum(weights[p] * loss for p, loss in parts.items())
    total = total / (sum(weights[p] for p in parts) or 1)
    batch = ItemBatches(items, {})[np.array(rows)]
    assert set(parts) == set(module._loss(batch)[1]) == expected
    loss = module.training_step(batch, 0)
    assert float(loss.detach()) == pytest.approx(float(total.detach()), rel=1e-5)
    one, other = gradients(module, loss), gradients(module, total)
    assert any(bool(g.any()) for g in one.values()) == bool(expected)
    for name, gradient in one.items():
        assert torch.allclose(gradient, other[name], rtol=1e-4, atol=1e-5), name


def test_a_caption_without_its_row_is_compared_with_the_other_rows(items: Items, space: Space, run: Runs) -> None:
    """Row 45 has a caption and no counts, rows 0 and 1 have counts and no caption; the loss does not vanish."""
    gene = items.index["gene"].copy()
    gene[45] = -1
    lacking = replace(items, index={**items.index, "gene": gene})
    check_step(training(space(), run(text_loss="sigmoid")), lacking, [0, 1, 40, 45, 46], BOTH)


@pytest.mark.parametrize(
    ("text_loss", "without_counts", "rows", "expected"),
    [
        # two images and three rows with counts, of which one is a pair
        ("info_nce", [1], [0, 1, 40, 41], {"gene_text"}),
        # two captions and two rows with counts, of which one is a pair
        ("info_nce", [41], [0, 40, 41], set()),
        # two captions, and no row with counts to compare them with
        ("sigmoid", [45, 46], [45, 46], set()),
    ],
)
def test_a_single_pair_or_captions_alone_have_no_loss(
    items: Items,
    space: Space,
    run: Runs,
    text_loss: str,
    without_counts: list[int],
    rows: list[int],
    expected: set[str],
) -> None:
    gene = items.index["gene"].copy()
    gene[without_counts] = -1
    lacking = replace(items, index={**items.index, "gene": gene})
    check_step(training(space(), run(text_loss=text_loss)), lacking, rows, expected)


def test_a_row_with_two_captions_is_a_positive_of_both(items: Items, space: Space, run: Runs) -> None:
    """Two items of row 40 have captions 0 and 3; item 44 of caption 0 is a row of its own."""
    caption, row = items.index["text"].copy(), items.row.copy()
    row[43], gene = 40, items.index["gene"].copy()
    gene[43] = gene[40]
    twice = replace(items, index={**items.index, "text": caption, "gene": gene}, row=row)
    module = training(space(), run(text_loss="sigmoid"))
    batch = ItemBatches(twice, {})[np.array([40, 43, 44])]
    gene_text = module._loss(batch)[1]["gene_text"]
    x = torch.from_numpy(items.inputs["gene"][[40, 40, 44]])
    z, t = module.model("gene", x), module.model("text", torch.from_numpy(items.inputs["text"][[0, 3]]))
    scores = module.model.log_scale.exp() * z @ t.T + module.bias
    first = softplus(-scores[:, 0]).mean()
    second = softplus(-scores[:2, 1]).mean() + softplus(scores[2, 1])
    assert float(gene_text.detach()) == pytest.approx(float((first + second).detach()) / 2, rel=1e-5)


# ------------------------------------------------------------------------------------------------- precision


@torch.no_grad()
@pytest.mark.parametrize("text_loss", ["info_nce", "sigmoid"])
def test_similarities_are_computed_in_float32_under_autocast(
    items: Items, space: Space, run: Runs, text_loss: str
) -> None:
    """Rows of the length sqrt(8) and a scale of 30 give logits up to 240, which have steps of 1 in bfloat16."""
    module = training(space(norm="none", temperature=1 / 30), run(text_loss=text_loss))
    batch = ItemBatches(items, {})[np.r_[0:8, 40:44]]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        parts = module._loss(batch)[1]
        z = {m: module.model.heads[m](batch[m]["x"]).float() for m in ("image", "gene", "text")}
    scale, rows = module.model.log_scale.exp(), batch["row"][:8]
    assert float((scale * z["gene"] @ z["text"].T).abs().max()) > 100
    assert torch.equal(parts["image_gene"], contrastive(z["image"], z["gene"][:8], scale, ids=rows))
    if text_loss == "info_nce":
        assert torch.equal(parts["gene_text"], contrastive(z["gene"][8:], z["text"], scale, ids=torch.arange(4)))
    else:
        scores = scale * z["gene"] @ z["text"].T + module.bias
        own = torch.cat([torch.zeros(8, 4), torch.eye(4)]).bool()
        means = softplus(-scores)[own].mean() + softplus(scores)[~own].mean()
        assert float(parts["gene_text"]) == pytest.approx(float(means), rel=1e-6)


PRECISIONS = [("64-true", 1e-5), ("bf16-mixed", 0.05), ("16-mixed", 0.05), ("bf16-true", 0.25)]


@pytest.mark.parametrize(("precision", "tolerance"), PRECISIONS)
def test_every_precision_moves_the_weights_about_equally(
    items: Items, space: Space, run: Runs, precision: str, tolerance: float
) -> None:
    """Relative to the way of the float32 run. The model is in float32 again after it, with the exact statistics of its features."""
    models, moved = [], []
    for kind in ("32-true", precision):
        model = space(heads={"text": "bn_shortcut"}, decoder_dim=2)
        before = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
        for m, width in (("image", 6), ("gene", 5)):
            model.set_statistics(m, np.full(width, 1000.123, np.float32), np.full(width, 1.0 / 3, np.float32))
        how = run({"precision": kind}, folder=run().folder / kind)
        fit(model, items, None, how, schedule="joint", image_link=None)
        models.append(model)
        moved.append(torch.nn.utils.parameters_to_vector(model.parameters()).detach() - before)
    assert float((moved[1] - moved[0]).norm() / moved[0].norm()) < tolerance
    assert {x.dtype for x in models[1].state_dict().values()} == {torch.float32, torch.int64}
    for name, value in models[0].named_buffers(recurse=False):
        assert torch.equal(getattr(models[1], name), value), name
    assert np.isfinite(models[1].project("image", items.inputs["image"])).all()


# ------------------------------------------------------------------------------------------------- temperature


@pytest.mark.parametrize(("learns", "expected"), [(True, 100.0), (False, 200.0)])
def test_a_scale_that_is_learned_stays_at_100_or_below(
    items: Items, space: Space, run: Runs, learns: bool, expected: float
) -> None:
    model = space(temperature=1 / 200)
    # the first step is taken at the largest scale, and no step is large enough to leave it
    how = run(learn_temperature=learns, learning_rate=1e-7)
    fit(model, items, None, how, schedule="joint", image_link=None)
    assert model.scale == pytest.approx(expected, rel=1e-4)


def test_a_step_does_not_take_the_scale_above_100(space: Space, run: Runs) -> None:
    module = training(space(temperature=1 / 90), run())
    module.on_train_batch_end(None, None, 0)
    assert module.model.scale == pytest.approx(90)
    with torch.no_grad():
        module.model.log_scale.fill_(math.log(101))
    module.on_train_batch_end(None, None, 0)
    assert module.model.scale == pytest.approx(100)


# ------------------------------------------------------------------------------------------------- decoder


@pytest.mark.parametrize(("others", "weight"), [(None, 1.0), (2, 1.0), (6, 0.5), (0, 2.0)])
def test_the_error_of_a_decoder_weighs_a_rank_by_its_rows(
    space: Space, run: Runs, others: int | None, weight: float
) -> None:
    """Two rows here and ``others`` on a second rank: the mean over the ranks is then the mean over all rows."""
    module = training(space(decoder_dim=3), run(regression_weight=10.0))
    decoder = module.model.decoder.eval()
    if others is not None:
        module.trainer.world_size = 2
        module.all_gather = lambda x, **_: torch.stack([x, torch.full_like(x, others)])
    image, y = torch.randn(4, 8), torch.randn(2, 3)
    found = module._decoder_loss(decoder, image, {"at": torch.tensor([1, 3]), "y": y})
    error = (decoder(image[[1, 3]]) - y).square().mean()
    assert float(found.detach()) == pytest.approx(10 * weight * float(error.detach()), rel=1e-5)
