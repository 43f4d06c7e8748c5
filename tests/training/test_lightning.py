from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from spatialwhisperer.encoders.base import Encoder
from spatialwhisperer.models.presets.catalogue import get_preset
from spatialwhisperer.networks.heads import BatchNormShortcut
from spatialwhisperer.training.batches import ItemBatches
from spatialwhisperer.training.fit import Phase, fit, fit_phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from spatialwhisperer.models.joint_space import JointSpace
    from spatialwhisperer.training.batches import Items
    from spatialwhisperer.training.fit import Run

    Space = Callable[..., JointSpace]
    Runs = Callable[..., Run]


class Tower(Encoder):
    """An encoder of text features that can be trained: one linear layer."""

    def encode(self, inputs: Any, **options: Any) -> np.ndarray:
        raise NotImplementedError

    def __init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.layer = torch.nn.Linear(4, 4)
        self.weight = self.layer.weight.detach().clone()

    def module(self) -> torch.nn.Module:
        return self.layer


class Watch:
    """Keeps what a function of the training module returns after every step."""

    def __init__(self, look: Callable[[Any], Any]) -> None:
        from lightning.pytorch.callbacks import Callback

        seen = self.seen = []  # type: ignore[var-annotated]

        class Keep(Callback):
            def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:  # noqa: ARG002
                seen.append(look(pl_module))

        self.callback = Keep()


def tower_state(module: Any) -> tuple[torch.Tensor, bool]:
    """Weights of the text encoder, and its mode."""
    tower = module.model.towers["text"]
    return tower.weight.detach().clone(), tower.training


def training(space: Space, run: Runs, **options: Any) -> Any:
    """The training module of a run of 100 steps, without a trainer."""
    from spatialwhisperer.training.lightning import ContrastiveTraining

    model, how = space(trained={m: Tower() for m in options.get("unlocked", ())}), run(**options)
    heads = {"image", "gene", "text"}
    return ContrastiveTraining(
        model,
        pairs=how.pairs,
        recipe=how.recipe,
        loss=how.loss,
        train_heads=heads,
        unlocked=how.unlocked,
        total_steps=100,
    )


# ------------------------------------------------------------------------------------------------- rows without a modality


def test_rows_without_a_modality_never_reach_its_head(
    items: Items, space: Space, run: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running statistics of each batch norm are those of the present rows only."""
    seen: dict[int, list[torch.Tensor]] = {}
    forward = BatchNormShortcut.forward

    def watch(self: BatchNormShortcut, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            seen.setdefault(x.shape[1], []).append(x.detach().clone())
        return forward(self, x)

    monkeypatch.setattr(BatchNormShortcut, "forward", watch)
    model = space(heads=dict.fromkeys(("image", "gene", "text"), "bn_shortcut"))
    # one step without learning, half of it with images and half with captions, so that the statistics can be computed by hand
    fit(model, items, None, run(max_epochs=1, batch_size=64, learning_rate=0.0), schedule="joint", image_link=None)
    widths = {m: config.head.in_dim for m, config in model.config.modalities.items()}
    assert {m: len(seen[width][0]) for m, width in widths.items()} == {"image": 32, "text": 32, "gene": 64}
    for modality, width in widths.items():
        head: Any = model.heads[modality]
        bn, hidden = head.nonlinear[1], head.nonlinear[0](seen[width][0])
        assert len(seen[width]) == int(bn.num_batches_tracked) == 1
        assert torch.allclose(bn.running_mean, 0.1 * hidden.mean(0), atol=1e-5)
        assert torch.allclose(bn.running_var, 0.9 + 0.1 * hidden.var(0), atol=1e-5)


def test_a_single_row_of_a_modality_is_left_out_while_its_head_is_trained(
    items: Items, space: Space, run: Runs
) -> None:
    module = training(space, run)
    module.trainer = type("Trainer", (), {"world_size": 1, "global_step": 0})()
    module.model.heads["image"].train()
    part = ItemBatches(items, {})[np.array([0, 40, 41])]["image"]
    z, ids = module._embed("image", part, 3)[:2]
    assert ids.tolist() == [-1, -1, -1]
    assert not z.any()
    assert z.requires_grad
    module.model.heads["image"].eval()
    z, ids = module._embed("image", part, 3)[:2]
    assert ids.tolist() == [0, -1, -1]
    assert torch.allclose(z.norm(dim=1), torch.tensor([1.0, 0, 0]))


def test_a_batch_without_a_pair_has_no_validation_loss(items: Items, space: Space, run: Runs) -> None:
    module = training(space, run)
    module.trainer = type("Trainer", (), {"world_size": 1})()
    logged: dict[str, float] = {}
    module.log_dict = lambda values, **_: logged.update(values)
    module.eval().validation_step(ItemBatches(items, {})[np.array([0, 40])], 0)
    assert logged == {}
    module.validation_step(ItemBatches(items, {})[np.array([0, 1, 40])], 0)
    assert set(logged) == {"val_loss", "val_loss_image_gene"}


# ------------------------------------------------------------------------------------------------- what is trained


def test_heads_that_are_not_trained_stay_as_they_are(items: Items, space: Space, run: Runs) -> None:
    model, before = space(heads={"gene": "bn_shortcut"}), space(heads={"gene": "bn_shortcut"})
    fit_phase(model, items, None, Phase("p", {("image", "gene"): 1.0}, frozenset({"image"})), run())
    for name, value in model.heads["gene"].state_dict().items():
        assert torch.equal(value, before.heads["gene"].state_dict()[name]), name
    changed = zip(model.heads["image"].parameters(), before.heads["image"].parameters(), strict=True)
    assert not any(torch.equal(a, b) for a, b in changed)


def test_a_pretrained_encoder_rests_in_the_warm_up_and_is_trained_then(items: Items, space: Space, run: Runs) -> None:
    watch = Watch(tower_state)
    model = space(trained={"text": Tower()})
    options = run({"callbacks": watch.callback}, unlocked={"text": "U"}, warmup=0.25, max_epochs=4)
    fit(model, items, None, options, schedule="joint", image_link=None)
    n, warm = len(watch.seen), 4
    assert n == 16
    weights = [weight for weight, _ in watch.seen]
    assert all(torch.equal(weights[0], w) for w in weights[:warm])
    assert torch.equal(weights[0], Tower().weight)
    assert not torch.equal(weights[0], weights[warm])
    assert not torch.equal(weights[warm], weights[-1])
    assert [mode for _, mode in watch.seen] == [False] * warm + [True] * (n - warm)


def test_an_encoder_without_pretrained_weights_is_trained_from_the_first_step(
    items: Items, space: Space, run: Runs
) -> None:
    watch = Watch(tower_state)
    model = space(trained={"text": Tower()})
    options = run({"callbacks": watch.callback}, unlocked={"text": "u"}, warmup=0.25, max_epochs=1)
    fit(model, items, None, options, schedule="joint", image_link=None)
    assert all(mode for _, mode in watch.seen)
    assert not torch.equal(watch.seen[0][0], Tower().weight)


@pytest.mark.parametrize("kind", ["u", "U"])
def test_what_is_frozen_of_an_encoder_stays_frozen(items: Items, space: Space, run: Runs, kind: str) -> None:
    tower = Tower()
    before = tower.layer.requires_grad_(True).bias.requires_grad_(False).clone()
    model = space(trained={"text": tower})
    fit(model, items, None, run(unlocked={"text": kind}, max_epochs=2), schedule="joint", image_link=None)
    assert torch.equal(model.towers["text"].bias, before)  # type: ignore[arg-type]
    assert not torch.equal(model.towers["text"].weight, tower.weight)  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_an_encoder_is_trained_in_every_precision(items: Items, space: Space, run: Runs, precision: str) -> None:
    model = space(trained={"text": Tower()})
    options = run({"precision": precision}, unlocked={"text": "u"}, max_epochs=1)
    fit(model, items, None, options, schedule="joint", image_link=None)
    tower: Any = model.towers["text"]
    assert tower.weight.dtype == torch.float32
    assert 0.001 < float((tower.weight - Tower().weight).detach().abs().mean()) < 0.1


def test_a_resumed_encoder_does_not_rest_again(items: Items, space: Space, run: Runs) -> None:
    from lightning.pytorch.callbacks import Callback

    class Stop(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
            if trainer.current_epoch == 3:
                raise KeyboardInterrupt

    how: dict[str, Any] = {"unlocked": {"text": "U"}, "warmup": 0.25, "max_epochs": 6}
    with pytest.raises(KeyboardInterrupt):
        fit(
            space(trained={"text": Tower()}),
            items,
            None,
            run({"callbacks": Stop()}, **how),
            schedule="joint",
            image_link=None,
        )
    watch = Watch(tower_state)
    resumed = run({"callbacks": watch.callback}, resume=True, **how)
    fit(space(trained={"text": Tower()}), items, None, resumed, schedule="joint", image_link=None)
    assert [mode for _, mode in watch.seen] == [True] * 12


@pytest.mark.parametrize("learns", [False, True])
def test_the_temperature_is_trained_where_the_recipe_says_so(
    items: Items, space: Space, run: Runs, learns: bool
) -> None:
    model = space()
    before = model.scale
    history = fit(model, items, None, run(learn_temperature=learns), schedule="joint", image_link=None).history
    assert (model.scale != before) == learns
    # of the last batch, before its step
    assert history["scale"].iloc[-1] == pytest.approx(model.scale, rel=0.01)


def test_the_sigmoid_loss_trains_a_bias(items: Items, space: Space, run: Runs) -> None:
    watch = Watch(lambda module: float(module.bias.detach()))
    options = run({"callbacks": watch.callback}, text_loss="sigmoid", max_epochs=10)
    history = fit(space(), items, None, options, schedule="joint", image_link=None).history
    assert watch.seen[0] != watch.seen[-1]
    assert history["loss_gene_text"].iloc[-1] < history["loss_gene_text"].iloc[0]


def test_a_decoder_is_trained_beside_the_contrastive_loss(items: Items, space: Space, run: Runs) -> None:
    """The error of the decoder is the difference between the loss and the mean over the pairs."""
    values = csr_matrix(np.tile(np.array([1, 0, 2], np.float32), (32, 1)))
    index = np.where(np.arange(48) < 32, np.arange(48), -1)
    given = replace(items, values=values, value_index=index)
    model = space(decoder_dim=3)
    options = run(regression_weight=10.0, max_epochs=25, learning_rate=3e-2)
    history = fit(model, given, None, options, schedule="joint", image_link=None).history
    error = history["loss"] - (history["loss_image_gene"] + history["loss_gene_text"]) / 2
    assert error.iloc[0] > 5
    assert error.iloc[-1] < 0.5
    z = model.project("image", items.inputs["image"], unit=False)
    assert np.allclose(model.decoded(z), values.toarray(), atol=0.5)


# ------------------------------------------------------------------------------------------------- history


def step_losses() -> tuple[list[float], Any]:
    """Losses of all steps, and the callback that collects them."""
    from lightning.pytorch.callbacks import Callback

    losses: list[float] = []

    class Keep(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:  # noqa: ARG002
            losses.append(float(outputs["loss"]))

    return losses, Keep()


def test_the_history_holds_the_mean_over_the_batches_of_an_epoch(items: Items, space: Space, run: Runs) -> None:
    losses, keep = step_losses()
    history = fit(space(), items, None, run({"callbacks": keep}), schedule="joint", image_link=None).history
    by_epoch = np.array(losses).reshape(3, 4)
    assert np.ptp(by_epoch, axis=1).min() > 0.01
    assert history["loss"].tolist() == pytest.approx(by_epoch.mean(axis=1), rel=1e-6)


def test_a_batch_without_a_pair_does_not_count_in_the_history(space: Space, run: Runs) -> None:
    module = training(space, run)
    module.trainer = type("Trainer", (), {"world_size": 1, "global_step": 0})()
    logged: dict[str, Any] = {}
    module.log = lambda name, value, **how: logged.update({name: (value, how)})
    both: dict[str, Any] = {"image": {}, "gene": {}, "text": {}}
    module._log_means(torch.tensor(0.0), {}, both)
    assert logged == {}
    module._log_means(torch.tensor(2.0), {"gene_text": torch.tensor(2.0)}, both)
    assert set(logged) == {"loss", "loss_gene_text"}
    assert all(how["on_epoch"] and not how["on_step"] and how["sync_dist"] for _, how in logged.values())
    # on several ranks every rank logs every name, with the weight zero where it has no pair
    logged.clear()
    module.trainer.world_size = 2
    module._log_means(torch.tensor(2.0), {"gene_text": torch.tensor(2.0)}, both)
    weights = {name: how["batch_size"] for name, (_, how) in logged.items()}
    assert weights == {"loss": 1, "loss_image_gene": 0, "loss_gene_text": 1}


# ------------------------------------------------------------------------------------------------- optimiser


def test_weights_decay_and_biases_norms_and_temperature_do_not(space: Space, run: Runs) -> None:
    optimizer = training(space, run, weight_decay=0.1).configure_optimizers()["optimizer"]
    assert isinstance(optimizer, torch.optim.AdamW)
    for group in optimizer.param_groups:
        assert group["weight_decay"] == (0.1 if group["params"][0].ndim > 1 else 0)
    scalars = [p for g in optimizer.param_groups for p in g["params"] if p.ndim == 0]
    assert len(scalars) == 1


def test_the_published_adam_decays_every_parameter(space: Space, run: Runs) -> None:
    optimizer = training(space, run, weight_decay=0.1, optimizer="adam").configure_optimizers()["optimizer"]
    assert type(optimizer) is torch.optim.Adam
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.1]


def rates(module: Any) -> dict[float, list[float]]:
    """Learning rate in every step, by the rate of the parameter group."""
    made = module.configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    out: dict[float, list[float]] = {g["initial_lr"]: [] for g in optimizer.param_groups}
    for _ in range(100):
        for group in optimizer.param_groups:
            at = out[group["initial_lr"]]
            at.append(group["lr"] / group["initial_lr"])
        optimizer.step()
        schedule.step()
    return {rate: values[:: len(values) // 100] for rate, values in out.items()}


def test_the_learning_rate_rises_and_then_falls_like_a_cosine(space: Space, run: Runs) -> None:
    (values,) = rates(training(space, run, warmup=0.1, final_learning_rate=0.2)).values()
    assert values[:10] == pytest.approx(np.arange(1, 11) / 10)
    steps = np.arange(10, 100)
    assert values[10:] == pytest.approx(0.2 + 0.8 * 0.5 * (1 + np.cos(np.pi * steps / 100)))


def step_rates() -> tuple[dict[int, float], Any]:
    """Learning rate of the heads in every step of the optimiser, and the callback that collects it."""
    from lightning.pytorch.callbacks import Callback

    seen: dict[int, float] = {}

    class Keep(Callback):
        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:  # noqa: ARG002
            seen[trainer.global_step] = optimizer.param_groups[0]["lr"]

    return seen, Keep()


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, 40),
        ({"accumulate_grad_batches": 4}, 10),
        ({"accumulate_grad_batches": 3}, 20),
        ({"limit_train_batches": 2}, 20),
        ({"max_steps": 15}, 15),
    ],
)
def test_warm_up_and_cosine_count_the_steps_of_the_optimiser(
    items: Items, space: Space, run: Runs, options: dict[str, int], steps: int
) -> None:
    """Ten epochs of four batches; the rate reaches the end of its cosine whatever a step is made of."""
    seen, keep = step_rates()
    how = run({"callbacks": keep, **options}, warmup=0.2, final_learning_rate=0.05, learning_rate=1e-3, max_epochs=10)
    fit(space(), items, None, how, schedule="joint", image_link=None)
    warm, t = steps // 5, np.arange(steps)
    cosine = 0.05 + 0.95 * 0.5 * (1 + np.cos(np.pi * t / steps))
    assert list(seen) == t.tolist()
    assert list(seen.values()) == pytest.approx(1e-3 * np.where(t < warm, (t + 1) / warm, cosine))


@pytest.mark.parametrize(
    ("preset", "rate"), [("bleep", 1e-3), ("heclip-heg", 1e-3), ("heclip-hvg", 1e-3), ("mclstexp", 1e-4)]
)
def test_methods_with_a_constant_rate_have_the_published_one_in_every_step(
    items: Items, space: Space, run: Runs, preset: str, rate: float
) -> None:
    seen, keep = step_rates()
    recipe = replace(get_preset(preset).joint, batch_size=16)
    how = run({"callbacks": keep}, recipe=recipe, max_epochs=3)
    fit(space(), items, None, how, schedule="joint", image_link=None)
    assert list(seen.values()) == [rate] * 12


def test_a_constant_learning_rate_stays(space: Space, run: Runs) -> None:
    (values,) = rates(training(space, run, warmup=0.0, schedule="constant")).values()
    assert values == pytest.approx([1.0] * 100)


def test_a_pretrained_encoder_has_a_warm_up_of_its_own(space: Space, run: Runs) -> None:
    """Its rate is zero during the first one, and the heads start again with it."""
    how = {"warmup": 0.1, "schedule": "constant", "tower_learning_rate": 1e-4, "unlocked": {"text": "U"}}
    by_rate = rates(training(space, run, **how))
    ramp = np.arange(1, 11) / 10
    assert by_rate[1e-4] == pytest.approx(np.r_[np.zeros(10), ramp, np.ones(80)])
    assert by_rate[1e-2] == pytest.approx(np.r_[ramp, ramp, np.ones(80)])
