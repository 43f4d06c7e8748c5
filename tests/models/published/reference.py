"""The published model in double precision NumPy, written from its formulas: the text tower, the heads, and the score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import erf

from tests.models.published.generator import BLOCKS

if TYPE_CHECKING:
    from collections.abc import Mapping


def doubles(state: Mapping) -> dict[str, np.ndarray]:
    return {name: value.numpy().astype(np.float64) for name, value in state.items()}


def project(state: Mapping[str, np.ndarray], modality: str, x: np.ndarray) -> np.ndarray:
    """Unit rows of the joint space: LayerNorm(W2 ReLU(BN(W1 x)) + b2 + Ws x + bs)."""
    at = f"model.discriminator.{BLOCKS[modality]}."

    def of(name: str) -> np.ndarray:
        return state[at + name]

    x = x.astype(np.float64)
    inner = x @ of("feature_nonlinear.0.weight").T
    inner = (inner - of("feature_nonlinear.1.running_mean")) / np.sqrt(of("feature_nonlinear.1.running_var") + 1e-5)
    inner = np.maximum(inner * of("feature_nonlinear.1.weight") + of("feature_nonlinear.1.bias"), 0)
    y = inner @ of("feature_nonlinear.3.weight").T + of("feature_nonlinear.3.bias")
    y = y + x @ of("feature_shortcut.weight").T + of("feature_shortcut.bias")
    y = (y - y.mean(1, keepdims=True)) / np.sqrt(y.var(1, keepdims=True) + 1e-5)
    y = y * of("feature_block_ln.weight") + of("feature_block_ln.bias")
    return y / np.linalg.norm(y, axis=1, keepdims=True)


def pooled(state: Mapping[str, np.ndarray], ids: list[int], layers: int) -> np.ndarray:
    """Pooler output of BERT for the tokens of one text, without padding."""

    def of(name: str) -> np.ndarray:
        return state[f"model.text_model.{name}"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * of(f"{name}.weight") + of(f"{name}.bias")

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ of(f"{name}.weight").T + of(f"{name}.bias")

    x = of("embeddings.word_embeddings.weight")[ids] + of("embeddings.position_embeddings.weight")[: len(ids)]
    x = norm(x + of("embeddings.token_type_embeddings.weight")[0], "embeddings.LayerNorm")
    for i in range(layers):
        at = f"encoder.layer.{i}"
        q, k, v = (linear(x, f"{at}.attention.self.{name}") for name in ("query", "key", "value"))
        mixed = []
        for start in range(0, x.shape[1], 64):
            part = slice(start, start + 64)
            score = q[:, part] @ k[:, part].T / 8
            weight = np.exp(score - score.max(1, keepdims=True))
            mixed.append(weight / weight.sum(1, keepdims=True) @ v[:, part])
        x = norm(
            x + linear(np.concatenate(mixed, axis=1), f"{at}.attention.output.dense"),
            f"{at}.attention.output.LayerNorm",
        )
        inner = linear(x, f"{at}.intermediate.dense")
        inner = inner * (1 + erf(inner / np.sqrt(2))) / 2
        x = norm(x + linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    return np.tanh(linear(x[0], "pooler.dense"))
