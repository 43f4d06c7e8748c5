"""What the tests of the verbs share."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest


class Keys:
    """Names of everything that a table holds, to be compared before and after a call."""

    PARTS = ("obs", "var", "obsm", "layers", "uns")

    def of(self, table: Any) -> dict[str, set[str]]:
        names = {part: set(getattr(table, part)) for part in self.PARTS}
        return names | {"recorded": set(table.uns.get("spatialwhisperer", {}))}

    def added(self, before: dict[str, set[str]], table: Any) -> dict[str, set[str]]:
        now = self.of(table)
        assert all(before[part] <= now[part] for part in now)
        return {part: now[part] - before[part] for part in now if now[part] != before[part]}


@pytest.fixture(scope="session")
def keys() -> Keys:
    return Keys()


@pytest.fixture
def own(model: Any) -> Any:
    """A copy of the model that may be changed."""
    import copy

    return copy.deepcopy(model)


CLASSES = ["stroma", "fat", "tumour/in situ"]


def _patient(name: str, seed: int, n: int = 60, noise: float = 0.6) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    x = np.eye(6)[y] * 2 + rng.normal(0, noise, (n, 6))
    obs = pd.DataFrame({"patient": name, "label": pd.Categorical(np.array(CLASSES)[y], categories=CLASSES)})
    obs.index = [f"{name}{i}" for i in range(n)]
    adata = ad.AnnData(np.zeros((n, 1), np.float32), obs=obs)
    adata.obsm["X_sw_image"] = x.astype(np.float32)
    return adata


@pytest.fixture
def patients() -> list[ad.AnnData]:
    """Four patients with three classes that the embedding separates well."""
    return [_patient(name, seed) for seed, name in enumerate("ABCD")]


@pytest.fixture
def halves() -> ad.AnnData:
    """Two sections of a 12 x 12 lattice each, left half against right half, in noisy values."""
    rng = np.random.default_rng(0)
    xy = np.stack(np.meshgrid(range(12), range(12)), -1).reshape(-1, 2).astype(float)
    region = np.where(xy[:, 0] < 7, "left", "right")
    obs = pd.DataFrame({"section": np.repeat(["s", "t"], 144), "region": np.tile(region, 2)})
    obs.index = [f"r{i}" for i in range(288)]
    adata = ad.AnnData(np.zeros((288, 1), np.float32), obs=obs)
    adata.obsm["spatial"] = np.vstack([xy, xy])
    adata.obsm["values"] = (np.tile(region == "left", 2)[:, None] + rng.normal(0, 0.55, (288, 3))).astype(np.float32)
    return adata


@pytest.fixture(scope="session")
def training(simulated: Any) -> list[Any]:
    return [simulated.sections["P1"], simulated.sections["P2"]]


@pytest.fixture(scope="session")
def genes(training: list[Any]) -> list[str]:
    return [str(g) for g in training[0]["table"].var_names[:40]]
