"""A model as files: JSON and safetensors, written whole or not at all, and never unpickled."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._messages import found
from spatialwhisperer.models.checksums import checksums, model_files, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from spatialwhisperer.models.expression import ExpressionPredictor
    from spatialwhisperer.models.whisperer import Whisperer

CONFIG, WEIGHTS, GENE, TEXT = "config.json", "model.safetensors", "gene_encoder", "text_tower"
EXPRESSION, VOCABULARY, REFERENCE = "expression", "vocabulary", "reference"
PARTS = (GENE, TEXT, EXPRESSION, VOCABULARY, REFERENCE)
_CSR = ("data", "indices", "indptr")
_PICKLES = {".bin", ".ckpt", ".dill", ".joblib", ".npy", ".npz", ".pkl", ".pickle", ".pt", ".pth"}


def write_folder(folder: str | Path, write: Callable[[Path], None]) -> Path:
    """Write into a temporary sibling and move it into place, so that the folder is never half a model."""
    folder = Path(folder).expanduser().resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / CONFIG).is_file())):
        raise FileExistsError(f"{folder} exists and is not a model folder; choose another name or remove it.")
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        write(temporary)
        open_to_others(temporary, [temporary])
        if folder.exists():
            old = temporary.with_name(temporary.name + "-old")
            os.replace(folder, old)
            try:
                os.replace(temporary, folder)
            except BaseException:
                os.replace(old, folder)
                raise
            shutil.rmtree(old)
        else:
            os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def open_to_others(folder: Path, paths: Iterable[Path]) -> None:
    """Give files and folders inside a folder, or itself, the permissions that the user's umask allows.

    safetensors and temporary folders keep them to the user alone, so that colleagues could not open a model on a shared disk.
    """
    # what a new file gets; asking for the umask would change it for the whole process
    with tempfile.TemporaryDirectory(dir=folder) as within:
        probe = Path(within) / "probe"
        probe.touch()
        mode = probe.stat().st_mode & 0o666
    for path in paths:
        # a folder that may be read must be entered too
        path.chmod(mode | (mode & 0o444) >> 2 if path.is_dir() else mode)


def write_files(model: Whisperer, folder: Path) -> None:
    """Write weights, encoders and what else the model has, and last the configuration with the checksums of all of them."""
    from safetensors.torch import save_file

    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)
    if model.gene_encoder is not None:
        model.gene_encoder.save(folder / GENE)
    if model.expression is not None:
        _write_expression(model.expression, folder / EXPRESSION)
    if model.vocabulary is not None:
        model.vocabulary.write(folder / VOCABULARY)
    if model.reference is not None:
        model.reference.write(folder / REFERENCE)
    if "text" in model.towers:
        model.towers["text"].save_files(folder / TEXT)
    config = {"format": "spatialwhisperer", "version": version("spatialwhisperer"), **model.config}
    files = model_files(folder, CONFIG, PARTS)
    open_to_others(folder, files.values())
    config["files"] = checksums(files)
    (folder / CONFIG).write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def check_free(folder: Path) -> None:
    """Refuse a folder with files that would be taken for those of the model to be written there.

    Raises
    ------
    FileExistsError
        If there are any.
    """
    there = [name for name in (CONFIG, WEIGHTS, *PARTS) if (folder / name).exists()]
    if there:
        raise FileExistsError(
            f"{folder} holds {found(there)} already. model.save(folder) replaces a model; save_pretrained needs a new folder."
        )


def read_folder(cls: type[Whisperer], folder: Path, towers: dict[str, Any] | None = None) -> Whisperer:
    """Rebuild a model from its folder, after all of its files were found to be those that were written."""
    from safetensors.torch import load_file

    from spatialwhisperer.encoders.gene.all import load_gene_encoder
    from spatialwhisperer.encoders.towers import rebuild_towers

    config = _read_config(folder)
    _refuse_pickles(folder)
    verify(folder, model_files(folder, CONFIG, PARTS), config.pop("files", None))
    built = rebuild_towers(config, folder, towers or {})
    model = cls(config, built)
    try:
        tensors = load_file(folder / WEIGHTS)
    except Exception as error:
        raise ValueError(
            f"{folder / WEIGHTS} is not a readable safetensors file ({error}). Download or save it again."
        ) from error
    expected = model.state_dict()
    wrong = sorted(set(tensors) ^ set(expected)) or [k for k in expected if tensors[k].shape != expected[k].shape]
    if wrong:
        raise ValueError(f"{folder / WEIGHTS} does not fit {CONFIG}: check {found(wrong, 4)}.")
    model.load_state_dict(tensors)
    if (folder / GENE).is_dir():
        model.gene_encoder = load_gene_encoder(folder / GENE)
    if (folder / EXPRESSION).is_dir():
        model.expression = _read_expression(folder / EXPRESSION)
    if (folder / VOCABULARY).is_dir():
        from spatialwhisperer.models.vocabulary import Vocabulary

        model.vocabulary = Vocabulary.read(folder / VOCABULARY)
    if (folder / REFERENCE).is_dir():
        from spatialwhisperer.models.reference import Reference

        model.reference = Reference.read(folder / REFERENCE)
    model.folder = folder
    return model.eval()


def _write_expression(predictor: ExpressionPredictor, folder: Path) -> None:
    from safetensors.numpy import save_file

    folder.mkdir()
    (folder / CONFIG).write_text(json.dumps(predictor.config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    values = predictor.values
    tensors = {f"values.{k}": getattr(values, k) for k in _CSR} | {"values.shape": np.array(values.shape)}
    tensors |= predictor.arrays
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, folder / WEIGHTS)


def _read_expression(folder: Path) -> ExpressionPredictor:
    import scipy.sparse as sp
    from safetensors.numpy import load_file

    from spatialwhisperer.models.expression import ExpressionPredictor

    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
        shape = tuple(int(n) for n in tensors.pop("values.shape"))
        values = sp.csr_matrix(tuple(tensors.pop(f"values.{k}") for k in _CSR), shape=shape)
        values.check_format(full_check=True)
        return ExpressionPredictor(config, values, tensors)
    except Exception as error:
        raise ValueError(
            f"{folder} does not hold a predictor of expression ({error}). Save the model again."
        ) from error


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file() or not (folder / WEIGHTS).is_file():
        files = found(sorted(p.name for p in folder.iterdir()))
        raise FileNotFoundError(f"{folder} holds no model: {CONFIG} and {WEIGHTS} are needed (found: {files}).")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not readable JSON ({error}). Download or save the model again.") from error
    if config.pop("format", None) != "spatialwhisperer":
        raise ValueError(f"{path} was not written by spatialwhisperer.")
    config.pop("version", None)
    return config


def _refuse_pickles(folder: Path) -> None:
    pickles = [p.name for p in folder.rglob("*") if p.suffix.lower() in _PICKLES]
    if pickles:
        raise ValueError(
            f"{folder} holds files that can run code when opened ({found(pickles, 4)}). A model is {CONFIG}, {WEIGHTS} and "
            "its encoder folders; remove the others if you trust the rest."
        )


def fetch(model_id: str, **hub: Any) -> Path:
    """Download the files of a model from the hub, only those that a model has.

    Raises
    ------
    FileNotFoundError
        If there is no such model, or it cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    keep = ("revision", "cache_dir", "force_download", "local_files_only", "token")
    options = {k: hub[k] for k in keep if hub.get(k) is not None}
    patterns = [CONFIG, WEIGHTS, *(f"{TEXT}/*{suffix}" for suffix in (".json", ".txt", ".model"))]
    patterns += [f"{part}/{name}" for part in (GENE, EXPRESSION, VOCABULARY, REFERENCE) for name in (CONFIG, WEIGHTS)]
    try:
        return Path(snapshot_download(model_id, allow_patterns=patterns, **options))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise FileNotFoundError(
            f"{model_id!r} is not a folder here, and the hub did not give a model of that name ({error})."
        ) from error
