"""Linear probes on frozen image features of real sections: tumour, cancer fraction and gene expression.

usage: python benchmarks/image_features.py --data FOLDER [--encoder stain_texture]

FOLDER holds her2st/<section>/{counts.h5ad,meta.json,image.jpg} (C2 C3 C4 C5 at full resolution, A1 at 3.19 um/px).
Two settings: leave one section of patient C out; train on patient A, test on C, and the reverse, all at 3.19 um/px.
Genes are chosen on the training sections (heg50_r, hvg50_r) and, for comparison, on all sections of patient C, whether they
train or are tested (heg50_c_r, hvg50_c_r: the same genes in every row, but where C is tested the choice has seen it).
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from PIL import Image
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import LeaveOneGroupOut, StratifiedKFold

TILE_UM = 154.0
LOW_MPP = 3.19
TUMOUR = ["invasive cancer", "cancer in situ"]
FULL_SECTIONS = ["C2", "C3", "C4", "C5"]


def tiles_of(image: Image.Image, xy: np.ndarray, mpp: float) -> np.ndarray:
    """Cut uint8 (n, 3, p, p) tiles of TILE_UM around each spot; beyond the image is black, as in masked images."""
    p = round(TILE_UM / mpp)
    corners = np.rint(xy - p / 2).astype(int)
    return np.stack([np.asarray(image.crop((x, y, x + p, y + p))).transpose(2, 0, 1) for x, y in corners])


def read_section(folder: Path, section: str, low: bool) -> dict:
    """Tiles, their microns per pixel, labels and log1p(CP10k) expression of one section."""
    adata = ad.read_h5ad(folder / section / "counts.h5ad")
    meta = json.loads((folder / section / "meta.json").read_text())
    image = Image.open(folder / section / meta["image"]).convert("RGB")
    mpp, xy = meta["um_per_px"], np.asarray(adata.obsm["spatial"], float)
    if low and mpp < 0.9 * LOW_MPP:
        scale = mpp / LOW_MPP
        size = tuple(round(s * scale) for s in image.size)
        image, xy, mpp = image.resize(size, Image.Resampling.LANCZOS), xy * scale, LOW_MPP
    counts = pd.DataFrame(adata.X.toarray().astype(np.float32), columns=adata.var_names)
    expression = np.log1p(counts.div(counts.sum(axis=1), axis=0) * 1e4)
    label = adata.obs["pathologist_label"].astype(object)
    known = (label.notna() & (label != "undetermined")).to_numpy()
    return {
        "section": section,
        "tiles": tiles_of(image, xy, mpp),
        "mpp": mpp,
        "known": known,
        "tumour": label.isin(TUMOUR).to_numpy(),
        "cancer": adata.obs["deconv_cancer_epithelial"].to_numpy(float),
        "expression": expression,
    }


def standardise(x: np.ndarray) -> np.ndarray:
    """Z-score the features of one section and clip them."""
    sd = x.std(0)
    return np.clip((x - x.mean(0)) / np.where(sd > 1e-6, sd, 1), -6, 6)


def mean_pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over columns of the Pearson correlation; columns that do not vary in the truth are left out."""
    a, b = a - a.mean(0), b - b.mean(0)
    keep = b.std(0) > 0
    norms = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    return float(((a * b).sum(0)[keep] / np.maximum(norms[keep], 1e-12)).mean())


def ridge(splits: list | None = None) -> RidgeCV:
    """Ridge with its penalty chosen by leave-one-section-out on the training sections, or by leave-one-spot-out."""
    return RidgeCV(alphas=np.logspace(0, 5, 16), cv=splits)


def section_splits(groups: np.ndarray) -> list | None:
    """Folds that hold out one training section each; none where there is only one."""
    return list(LeaveOneGroupOut().split(groups, groups=groups)) if len(np.unique(groups)) > 1 else None


def gene_sets(sections: list[dict], genes: list[str]) -> dict[str, pd.Index]:
    """Fifty genes of highest mean and fifty of highest variance."""
    y = pd.concat([s["expression"][genes] for s in sections])
    return {"heg50": y.mean().nlargest(50).index, "hvg50": y.var().nlargest(50).index}


def probe(train: list[dict], test: dict, patient_c: list[dict]) -> dict[str, float]:
    """Fit every probe on the training sections and score it on the test section."""
    x = np.concatenate([s["x"] for s in train])
    known, tumour, cancer = (np.concatenate([s[k] for s in train]) for k in ("known", "tumour", "cancer"))
    groups = np.repeat(np.arange(len(train)), [len(s["x"]) for s in train])
    splits = section_splits(groups[known])
    if splits is None:
        splits = list(StratifiedKFold(5, shuffle=True, random_state=0).split(x[known], tumour[known]))
    logistic = LogisticRegressionCV(Cs=np.logspace(-4, 0, 9), cv=splits, scoring="neg_log_loss", max_iter=2000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        logistic.fit(x[known], tumour[known])
    score = logistic.decision_function(test["x"][test["known"]])
    out = {"tumour_auroc": roc_auc_score(test["tumour"][test["known"]], score)}

    has = np.isfinite(cancer)
    predicted = ridge(section_splits(groups[has])).fit(x[has], cancer[has]).predict(test["x"])
    measured = np.isfinite(test["cancer"])
    out["cancer_r"] = float(np.corrcoef(predicted[measured], test["cancer"][measured])[0, 1])

    genes = sorted(set.intersection(*(set(s["expression"].columns) for s in [*train, test, *patient_c])))
    sets = {f"{k}_r": v for k, v in gene_sets(train, genes).items()}
    sets |= {f"{k}_c_r": v for k, v in gene_sets(patient_c, genes).items()}
    for name, chosen in sets.items():
        y = pd.concat([s["expression"][chosen] for s in train]).to_numpy()
        fitted = ridge(section_splits(groups)).fit(x, y).predict(test["x"])
        out[name] = mean_pearson(fitted, test["expression"][chosen].to_numpy())
    return out


def evaluate(full: dict[str, dict], low: dict[str, dict]) -> pd.DataFrame:
    """One row per split; sections carry their standardised features in ``x``."""
    low_c = [low[s] for s in FULL_SECTIONS]
    splits = [("leave section out", [full[s] for s in full if s != test], full[test]) for test in full]
    splits += [("A1 -> C (3.19)", [low["A1"]], section) for section in low_c]
    splits += [("C -> A1 (3.19)", low_c, low["A1"])]
    rows = [{"setting": name, "test": test["section"], **probe(train, test, low_c)} for name, train, test in splits]
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds her2st/")
    parser.add_argument("--encoder", default="stain_texture", help="a name from the registry or any timm id")
    parser.add_argument("--weights", default=None, help="safetensors file or folder for the encoder")
    arguments = parser.parse_args()

    import spatialwhisperer as sw

    encoder = sw.models.image_encoder(arguments.encoder, weights=arguments.weights)
    folder = arguments.data / "her2st"
    Image.MAX_IMAGE_PIXELS = None  # whole sections are larger than Pillow's guard against decompression bombs
    full = {s: read_section(folder, s, low=False) for s in FULL_SECTIONS}
    low = {s: read_section(folder, s, low=True) for s in ["A1", *FULL_SECTIONS]}
    first = full[FULL_SECTIONS[0]]
    encoder.encode(first["tiles"][:2], mpp=first["mpp"])  # compile or move to the device before the clock starts
    for name, sections in (("full resolution", full), ("3.19 um/px", low)):
        start = time.perf_counter()
        for section in sections.values():
            section["x"] = standardise(encoder.encode(section["tiles"], mpp=section["mpp"]))
        n = sum(len(s["x"]) for s in sections.values())
        edge = next(iter(sections.values()))["tiles"].shape[-1]
        print(f"{name}: {n / (time.perf_counter() - start):.0f} tiles/s of {edge} px, {section['x'].shape[1]} features")
    table = evaluate(full, low)
    print(table.round(3).to_string(index=False))
    print(table.groupby("setting", sort=False).mean(numeric_only=True).round(3).to_string())


if __name__ == "__main__":
    main()
