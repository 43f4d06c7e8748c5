from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from spatialwhisperer.encoders.gene.pca import PCAEncoder

N, G = 150, 60
GENES = [f"G{i}" for i in range(G)]
IDS = [f"ENSG{i:011d}" if i % 3 else "" for i in range(G)]


def _counts(seed: int = 0, n: int = N, g: int = G) -> tuple[sp.csr_matrix, np.ndarray]:
    """Two kinds of rows that differ in ten genes."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 2, n)
    rate = (0.3 + rng.gamma(1.0, 1.0, g)) * np.where(np.arange(g) < 10, 1 + 4 * kind[:, None], 1)
    return sp.csr_matrix(rng.poisson(rate * rng.lognormal(0, 0.3, (n, 1)))), kind


@pytest.fixture(scope="session")
def counts() -> Any:
    """Function of a seed, and the numbers of rows and genes, that gives counts and the kind of each row."""
    return _counts


@pytest.fixture(scope="module")
def pca() -> PCAEncoder:
    return PCAEncoder.fit(_counts()[0], GENES, IDS, n_latent=5, n_top_genes=None)


@pytest.fixture(scope="session")
def scvi_fit() -> tuple[Any, Any]:
    """The encoder and the scvi-tools model that it was taken from."""
    from spatialwhisperer.encoders.gene._networks.scvi_training import train
    from spatialwhisperer.encoders.gene.scvi import SCVIEncoder

    batch = np.repeat(["a", "b"], N // 2)
    options = {"n_latent": 4, "n_hidden": 16, "n_layers": 2, "dropout_rate": 0.1}
    model, _ = train(_counts()[0].astype(np.float32), batch, None, options, 2, "cpu", 0)
    return SCVIEncoder._of(model, GENES, IDS, np.arange(G), {"rows": N}), model
