"""Runs that are resumed with other data or arguments: each is refused, and the text names what differs."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anndata as ad
import numpy as np
import scipy.sparse as sp

import spatialwhisperer as sw
from spatialwhisperer.training.resuming.run_identity import NAME
from tests.torture.frame import Campaign, Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Change = Callable[["Call", np.random.Generator], str]
    """Changes a call and returns what the refusal must name, a pattern."""

ROWS, GENES, EPOCHS = 40, 12, 3


class Call(NamedTuple):
    """Arguments of a call, which a change may change: objects, attributes of the preset, options, and the folder of the run."""

    tables: list[Any]
    preset: dict[str, Any]
    options: dict[str, Any]
    folder: Path

    def train(self, *, resume: bool) -> None:
        preset = sw.models.get_preset("bleep").replace(**self.preset)
        with sw.settings.override(verbose=False, progress=False):
            sw.tl.train(self.tables, preset=preset, folder=self.folder, resume=resume, **self.options)


def begun(folder: Path) -> Call:
    """Two patients with features of images and genes, and counts that are predicted."""
    rng, tables = np.random.default_rng(0), []
    for patient in "AB":
        table = ad.AnnData(sp.csr_matrix(rng.poisson(5, size=(ROWS, GENES)).astype(np.float32)))
        table.var_names = [f"G{i}" for i in range(GENES)]
        table.obs_names = [f"{patient}{i}" for i in range(ROWS)]
        table.obs["patient"] = patient
        table.obs["other"] = np.where(np.arange(ROWS) < ROWS / 2, "C", "D")
        table.obsm["X_image"] = rng.normal(size=(ROWS, 6)).astype(np.float32)
        table.obsm["X_gene"] = rng.normal(size=(ROWS, 5)).astype(np.float32)
        table.obsm["spatial"] = rng.permutation(ROWS)[:, None] * np.ones(2)
        tables.append(table)
    expression = sw.tl.ExpressionOptions(genes=[f"G{i}" for i in range(8)], cross_validate=False)
    options = {
        "image": sw.tl.ImageFeatures(key="X_image"),
        "gene": sw.tl.GeneFeatures(key="X_gene"),
        "expression": expression,
        "max_epochs": EPOCHS,
        "random_state": 0,
        "trainer": {"accelerator": "cpu", "devices": 1},
    }
    return Call(tables, {"batch_size": 16, "dropout": {"image": 0.2}}, options, folder)


# ------------------------------------------------------------------------------------------------- arguments


def _of_preset(name: str, *values: Any) -> Change:
    def change(call: Call, rng: np.random.Generator) -> str:
        call.preset[name] = values[rng.integers(len(values))]
        return rf"- preset\S*\.{name}"

    return change


def _of_trainer(name: str, *values: Any) -> Change:
    def change(call: Call, rng: np.random.Generator) -> str:
        call.options["trainer"][name] = values[rng.integers(len(values))]
        return rf"- trainer\.{name}: "

    return change


def _seed(call: Call, rng: np.random.Generator) -> str:
    call.options["random_state"] = seed = int(rng.integers(1, 2**31))
    return rf"- random_state: 0 before, {seed} now"


def _epochs(call: Call, rng: np.random.Generator) -> str:
    # more of them would continue the run, because the learning rate of the preset is constant
    call.options["max_epochs"] = n = int(rng.integers(1, EPOCHS))
    return f"begun with {EPOCHS} epochs, and {n} are asked for now"


def _validation(call: Call, rng: np.random.Generator) -> str:
    call.options["validation"] = str(rng.choice(["A", "B"]))
    return "- validation_groups: "


def _group_key(call: Call, rng: np.random.Generator) -> str:
    call.options["group_key"] = [None, "other"][rng.integers(2)]
    return r"- data\.groups: "


def _genes(call: Call, rng: np.random.Generator) -> str:
    genes = [f"G{i}" for i in rng.permutation(GENES)[: rng.integers(1, GENES)]]
    call.options["expression"] = sw.tl.ExpressionOptions(genes=genes, cross_validate=False)
    return r"- expression\.genes: "


def _no_expression(call: Call, rng: np.random.Generator) -> str:
    measured = sw.tl.ExpressionOptions(genes=[f"G{i}" for i in range(8)], cross_validate=True)
    call.options["expression"] = [False, measured][rng.integers(2)]
    return r"- expression"


def _other_key(call: Call, rng: np.random.Generator) -> str:  # noqa: ARG001
    for table in call.tables:
        table.obsm["X_new"] = table.obsm["X_image"]
    call.options["image"] = sw.tl.ImageFeatures(key="X_new")
    return r"- features_asked\.image\.key: "


# ------------------------------------------------------------------------------------------------- data


def _one_number(modality: str) -> Change:
    def change(call: Call, rng: np.random.Generator) -> str:
        table = call.tables[rng.integers(2)]
        x: Any = table.obsm[f"X_{modality}"]
        row, column = (int(rng.integers(n)) for n in x.shape)
        # not by the last bit, which may be lost when features are standardised
        x[row, column] += rng.choice([1e-3, 1, 1e3])
        return rf"- data\.inputs\.{modality}: "

    return change


def _one_count(call: Call, rng: np.random.Generator) -> str:
    counts: Any = call.tables[rng.integers(2)].X
    counts[int(rng.integers(ROWS)), int(rng.integers(8))] += int(rng.integers(1, 9))
    return r"- expression\.values: "


def _positions(call: Call, rng: np.random.Generator) -> str:
    call.tables[rng.integers(2)].obsm["spatial"][int(rng.integers(ROWS))] += 1 + rng.random()
    return r"- data\.positions: "


def _order(call: Call, rng: np.random.Generator) -> str:
    number = int(rng.integers(2))
    call.tables[number] = call.tables[number][np.roll(np.arange(ROWS), int(rng.integers(1, ROWS)))].copy()
    return r"- data\.inputs\.image: "


def _objects(call: Call, rng: np.random.Generator) -> str:
    if rng.random() < 0.5:
        call.tables.reverse()
    else:
        call.tables.pop()
    return r"- data\.groups: "


def _rows(call: Call, rng: np.random.Generator) -> str:
    number = int(rng.integers(2))
    call.tables[number] = call.tables[number][np.delete(np.arange(ROWS), int(rng.integers(ROWS)))].copy()
    return r"- data\.items: "


def _patient(call: Call, rng: np.random.Generator) -> str:
    obs: Any = call.tables[rng.integers(2)].obs
    obs["patient"] = obs["patient"].astype(str).where(np.arange(ROWS) != rng.integers(ROWS), "new")
    return r"- data\.groups: "


def _sections(call: Call, rng: np.random.Generator) -> str:
    number, cut = int(rng.integers(2)), int(rng.integers(1, ROWS))
    call.tables[number : number + 1] = [call.tables[number][:cut].copy(), call.tables[number][cut:].copy()]
    return r"- data\.sections: "


def _identity(call: Call, rng: np.random.Generator) -> str:
    """One changed character in the file that states the run; the caller puts the file back."""
    path = call.folder / NAME
    content = bytearray(path.read_bytes())
    digits = [i for i, c in enumerate(content) if chr(c).isdigit()]
    at = digits[rng.integers(len(digits))]
    content[at] = ord("0") + (content[at] - ord("0") + int(rng.integers(1, 10))) % 10
    path.write_bytes(content)
    return re.escape(NAME) if b'"remarks"' not in content[:at] else ""


CHANGES: tuple[Change, ...] = (
    _seed,
    _epochs,
    _validation,
    _group_key,
    _genes,
    _no_expression,
    _other_key,
    _of_preset("learning_rate", 1e-2, 1.0001e-3),
    _of_preset("batch_size", 15, 17, 80),
    _of_preset("dropout", {"image": 0.1}, {"gene": 0.2}),
    _of_preset("weight_decay", 0.3),
    _of_preset("projection_dim", 64, 255),
    _of_trainer("precision", "bf16-mixed", "64-true"),
    _of_trainer("accumulate_grad_batches", 2, 3),
    _of_trainer("gradient_clip_val", 0.1, 1.0),
    _of_trainer("limit_train_batches", 1, 0.5),
    _one_number("image"),
    _one_number("gene"),
    _one_count,
    _positions,
    _order,
    _objects,
    _rows,
    _patient,
    _sections,
    _identity,
)


def trials(rng: np.random.Generator, n: int) -> Iterator[Trial]:
    """One change after another, each with random values, of a run that is finished."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begun(folder).train(resume=False)
        stored = _files(folder)
        for number in range(n):
            change = CHANGES[number % len(CHANGES)]
            call = begun(folder)
            wanted = change(call, rng)
            before = _files(folder)
            trial = _judged(call, f"{number} ({change.__qualname__})", wanted)
            if _files(folder) != before:
                trial = Trial("", f"{trial.failure or number}; and the folder was changed")
            yield trial
            for path in _files(folder).keys() - stored.keys():
                path.unlink()
            for path, content in stored.items():
                path.write_bytes(content)


def _judged(call: Call, number: str, wanted: str) -> Trial:
    try:
        call.train(resume=True)
    except ValueError as error:
        if re.search(wanted, str(error)):
            return Trial("refused, the difference named")
        return Trial("", f"{number}: the text does not name {wanted!r}: {error}")
    except Exception as error:  # noqa: BLE001
        return Trial("", f"{number}: {type(error).__name__}: {error}")
    return Trial("", f"{number}: resumed in silence")


def _files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


CAMPAIGN = Campaign("resume with other data or arguments", trials, bounded=len(CHANGES), long=260)
