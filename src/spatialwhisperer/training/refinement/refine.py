"""From a closed form to the image head that left-out patients agree with best."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from spatialwhisperer.models.configuration.model import HeadConfig
from spatialwhisperer.models.configuration.refinement import Refinement
from spatialwhisperer.networks.heads import with_constant
from spatialwhisperer.statistics.grouped_ridge import left_out_in_turn
from spatialwhisperer.training.closed_form import length_of_typical_row, neighbour_columns
from spatialwhisperer.training.fitted import Fitted
from spatialwhisperer.training.refinement.agreement import units_agreement
from spatialwhisperer.training.refinement.pairs import read_pairs
from spatialwhisperer.training.refinement.rule import choose, in_words
from spatialwhisperer.training.refinement.steps import LINEAR, RESIDUAL, Method, refine_head, unit_rows
from spatialwhisperer.training.ridge_link import solve_ridge

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from spatialwhisperer.models.joint_space import JointSpace
    from spatialwhisperer.training.batches import Items
    from spatialwhisperer.training.refinement.pairs import Pairs
    from spatialwhisperer.training.refinement.rule import Choice
    from spatialwhisperer.training.refinement.steps import Watch

MANY_PAIRS, MANY_GROUPS = 5000, 6
"""From so many pairs of so many patients a perceptron is refined beside the linear map."""

FEWEST_UNITS = 3
"""Fewest patients (or sections of the only patient) that are left out: with two, a chance gain has a small standard error too often."""

MOST_CAPTIONS = 128
"""The agreement is computed for the captions that most rows have, up to so many."""


def refine(model: JointSpace, items: Items, *, bridge: str, neighbour_weight: float, random_state: int) -> Fitted:
    """Refine the image head of a model in closed form by contrastive steps, in place, where left-out patients gain from it.

    The heads of the bridge modality and of text stay fixed. Each patient is left out in turn (with one patient, each section): the closed
    form of the image is solved on the others, contrastive steps follow, and after every few steps the scores of the left-out images are
    compared with those of the fixed bridge modality (:func:`~spatialwhisperer.training.refinement.agreement.caption_agreement`). The
    number of steps is chosen by :func:`~spatialwhisperer.training.refinement.rule.choose`, for which 0 is always a candidate, and then
    taken from the closed form of all pairs.

    Nothing is stored on the way: an interrupted run computes the same again.

    Parameters
    ----------
    model
        Model in closed form.
    items
        Training items.
    bridge
        The modality that images are linked to.
    neighbour_weight
        Weight of the neighbours in an image embedding.
    random_state
        Seed.

    Returns
    -------
    History with loss and caption agreement on left-out units, one row for each number of steps that was compared, and the decision.
    """
    pairs = read_pairs(model, items, bridge=bridge)
    refusal = "rows have no positions" if pairs is None else _cannot(pairs)
    if pairs is None or refusal is not None:
        return _untried(str(refusal))
    method = method_for(pairs)
    search = _Search(model, pairs, method, _captions(model, items, bridge), neighbour_weight, random_state)
    names, agreement, losses = search.left_out()
    if len(names) < FEWEST_UNITS:
        return _untried("too few left-out units have rows whose captions differ; the closed form stays")
    choice = choose(agreement)
    if choice.kept:
        search.install(method.candidates[choice.best])
    reason = in_words(choice, method.candidates, search.what)
    history = _history(method.candidates, agreement, losses)
    return Fitted(history, refinement=_decision(method, choice, names, agreement, reason))


def method_for(pairs: Pairs) -> Method:
    """A perceptron beside the linear map where there are thousands of pairs of several patients, otherwise the linear map alone."""
    many = len(pairs) >= MANY_PAIRS and len(np.unique(pairs.group)) >= MANY_GROUPS
    return RESIDUAL if many else LINEAR


def _cannot(pairs: Pairs) -> str | None:
    """Why nothing is left out; ``None`` where something is. Of two units a standard error means nothing."""
    patients, sections = len(np.unique(pairs.group)), len(np.unique(pairs.section))
    n, what = (patients, "patients") if patients > 1 else (sections, "sections of the only patient")
    return (
        None
        if n >= FEWEST_UNITS
        else f"too few {what} to leave out ({n}, at least {FEWEST_UNITS}); the closed form stays"
    )


class _Search:
    """The steps of each fold, and of the final fit."""

    def __init__(
        self,
        model: JointSpace,
        pairs: Pairs,
        method: Method,
        captions: np.ndarray,
        neighbour_weight: float,
        random_state: int,
    ) -> None:
        self.model, self.pairs, self.method = model, pairs, method
        self.captions, self.random_state = captions, random_state
        # a context is there only where neighbours have a weight
        self.neighbour_weight = neighbour_weight if "image" in model.contexts else 0.0
        self.constant = length_of_typical_row(pairs.target.shape[1])
        several = len(np.unique(pairs.group)) > 1
        self.what = "patients" if several else "sections"
        self.names = pairs.group if several else pairs.section

    def left_out(self) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Names of the units, their agreement at each candidate (units, candidates), and the losses of the folds (folds, candidates)."""
        names: list[str] = []
        agreement, losses = [], []
        for out in left_out_in_turn(self.names, self.method.folds):
            inside = sorted(set(self.names[out].tolist()))
            found, loss = self._fold(np.setdiff1d(np.arange(len(self.pairs)), out), out, inside)
            defined = np.isfinite(found).all(axis=1)
            names += [name for name, known in zip(inside, defined, strict=True) if known]
            agreement.append(found[defined])
            losses.append(loss)
        return names, np.concatenate(agreement), np.array(losses)

    def _fold(self, stay: np.ndarray, out: np.ndarray, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
        train, held = self.pairs.at(stay), self.pairs.at(out)
        weight = solve_ridge(train.single, train.target, train.units())[0]
        fixed = self._scores(torch.from_numpy(held.target).float())
        columns, losses = [], []

        def watch(step: int, head: nn.Module, loss: float) -> None:  # noqa: ARG001
            with torch.inference_mode():
                image = self._scores(head(torch.from_numpy(held.seen)))
            columns.append(units_agreement(image, fixed, held.section, self.names[out], names))
            losses.append(loss)

        self._steps(train, weight, self.method.candidates[-1], watch)
        return np.stack(columns, axis=1), np.array(losses)

    def _scores(self, rows: torch.Tensor) -> np.ndarray:
        """Scores of rows for each caption, up to a factor that all rows share."""
        return unit_rows(rows, self.constant)[:, :-1].numpy() @ self.captions

    def _steps(self, pairs: Pairs, weight: np.ndarray, steps: int, watch: Watch) -> nn.Module:
        return refine_head(
            pairs,
            neighbour_columns(weight, self.neighbour_weight),
            self.method,
            constant=self.constant,
            steps=steps,
            random_state=self.random_state,
            watch=watch,
        )

    def install(self, steps: int) -> None:
        """Take so many steps from the closed form of all pairs, and replace the image head."""
        weight = solve_ridge(self.pairs.single, self.pairs.target, self.pairs.units())[0]
        refined = self._steps(self.pairs, weight, steps, lambda *_: None)
        image = self.model.config.modality("image")
        config = HeadConfig(self.method.head, image.head.in_dim, self.method.dropout)
        self.model.install_head("image", with_constant(refined, self.constant), config, context=image.context)


def _captions(model: JointSpace, items: Items, bridge: str) -> np.ndarray:
    """Vectors of the captions that most rows have, in the joint space without its constant coordinate, shape (p, c)."""
    other, text = items.index[bridge], items.index["text"]
    n = np.bincount(text[(other >= 0) & (text >= 0)], minlength=len(items.inputs["text"]))
    chosen = np.argsort(-n, kind="stable")[:MOST_CAPTIONS]
    chosen = np.sort(chosen[n[chosen] > 0])
    with torch.inference_mode():
        embedded = model("text", torch.from_numpy(np.asarray(items.inputs["text"], np.float32)[chosen]))
    return embedded.numpy()[:, :-1].T.astype(np.float32)


def _decision(method: Method, choice: Choice, names: list[str], agreement: np.ndarray, reason: str) -> Refinement:
    return Refinement(
        head=method.head,
        kept=choice.kept,
        steps=method.candidates[choice.best] if choice.kept else 0,
        candidates=method.candidates,
        agreement=tuple(agreement.mean(axis=0).tolist()),
        best_steps=method.candidates[choice.best],
        gains=dict(zip(names, choice.gains.tolist(), strict=True)),
        standard_error=choice.standard_error,
        reason=reason,
    )


def _untried(reason: str) -> Fitted:
    nothing = np.zeros((0, 0))
    return Fitted(_history((), nothing, nothing), refinement=Refinement(head="linear", kept=False, reason=reason))


def _history(candidates: tuple[int, ...], agreement: np.ndarray, losses: np.ndarray) -> pd.DataFrame:
    import pandas as pd

    rows = [
        {
            "phase": "refinement",
            "epoch": 0,
            "step": step,
            "loss": float(losses[:, at].mean()),
            "agreement": float(agreement[:, at].mean()),
        }
        for at, step in enumerate(candidates)
    ]
    return pd.DataFrame(rows, columns=["phase", "epoch", "step", "loss", "agreement"])
