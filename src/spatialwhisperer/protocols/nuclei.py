"""How well nuclei are found: against the nuclei that people drew on 85 images of stained tissue (2018 Data Science Bowl, CC0)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer._messages import progress
from spatialwhisperer.protocols.output import markdown, write_text

if TYPE_CHECKING:
    from pathlib import Path

ASSUMED_MPP = 0.5
"""Microns per pixel of all images, whose files state none: their magnifications differ, and nothing is estimated by image."""

TYPICAL_UM2 = 110.0
"""Typical nucleus of an image above which the assumed scale is too coarse for it, as it is at 40x and above."""

LABELLED_UM2 = 45.0
"""Area of a typical nucleus by which the scale of an image is taken from its labels, where that is asked for."""

OVERLAP = 0.5
N_BOOTSTRAP = 1000
_COARSEST_MPP = 0.75
_PLAIN = "Otsu and distance"

PUBLISHED = """
Published figures on other images, the test set of MoNuSeg (H&E at 40x, scale known), F1 at IoU 0.5: Otsu .16, watershed .27, Fiji .44,
U-Net .61 to .70, Mask R-CNN .66, the authors' network .69 (Scientific Reports 11, 2021, doi:10.1038/s41598-021-87496-1, table 2). They
show the order of magnitude; they are not measured on these images.
"""


@dataclass(frozen=True)
class Counts:
    """Nuclei of one image: drawn, found, and found with an overlap (IoU) above 0.5; and the median area of the drawn ones in pixels."""

    drawn: int
    found: int
    matched: int
    typical_px: float


def run(
    data: Path, out: Path, *, method: str = "watershed", weights: Path | None = None, smoke: bool = False
) -> pd.DataFrame:
    """Measure, and write ``nuclei.csv``, ``nuclei.md`` and ``nuclei.png``.

    Parameters
    ----------
    data
        Folder with ``nuclei/index.csv`` and the images.
    out
        Folder of the results.
    method
        Method of :func:`spatialwhisperer.pp.nuclei`.
    weights
        Weights of the method.
    smoke
        Take six images, to show that everything runs.
    """
    names = _names(data)
    chosen_on, held_back = halves(names)
    if smoke:
        chosen_on, held_back = chosen_on[:3], held_back[:3]
    options = {} if weights is None else {"weights": weights}
    rows = []
    for half, some in (("constants chosen on", chosen_on), ("held back", held_back)):
        fixed, plain, scaled, plain_scaled = ([] for _ in range(4))
        for name in progress(some, desc=half, unit="image"):
            image, truth = read(data, name)
            fixed.append(count(truth, find(image, ASSUMED_MPP, method, **options)))
            plain.append(count(truth, otsu(image, ASSUMED_MPP)))
            own = min(float(np.sqrt(LABELLED_UM2 / fixed[-1].typical_px)), _COARSEST_MPP)
            scaled.append(count(truth, find(image, own, method, **options)))
            plain_scaled.append(count(truth, otsu(image, own)))
        fits = [c.typical_px * ASSUMED_MPP**2 <= TYPICAL_UM2 for c in fixed]
        for what, counts in (
            ("all images", {method: fixed, _PLAIN: plain}),
            (f"typical nucleus up to {TYPICAL_UM2:g} µm²", {method: _of(fixed, fits), _PLAIN: _of(plain, fits)}),
            ("typical nucleus above", {method: _of(fixed, fits, False), _PLAIN: _of(plain, fits, False)}),
            ("scale from the labels", {method: scaled, _PLAIN: plain_scaled}),
        ):
            rows += [{"images": half, "method": f"{what}, {how}", **scores(c)} for how, c in counts.items() if c]
    result = pd.DataFrame(rows).set_index(["images", "method"])
    write_text(out / "nuclei.csv", result.to_csv())
    text = report(result)
    write_text(out / "nuclei.md", text)
    _picture(data, held_back, out, method, options)
    print(text)
    return result


def _of(counts: list[Counts], fits: list[bool], wanted: bool = True) -> list[Counts]:
    return [c for c, fit in zip(counts, fits, strict=True) if fit is wanted]


def halves(names: list[str]) -> tuple[list[str], list[str]]:
    """The images on which constants were chosen, and those that were held back."""
    order = np.random.default_rng(0).permutation(len(names))
    first, second = order[: len(names) // 2], order[len(names) // 2 :]
    return [names[i] for i in sorted(first)], [names[i] for i in sorted(second)]


def read(data: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """An image, uint8 (height, width, 3), and the number of the nucleus of each pixel, 0 where there is none."""
    from PIL import Image

    folder = data / "nuclei" / "dsb2018_he"
    image = np.asarray(Image.open(folder / f"{name}.png").convert("RGB"))
    return image, np.asarray(Image.open(folder / f"{name}_labels.png")).astype(np.int64)


def find(image: np.ndarray, mpp: float, method: str, **options: Any) -> np.ndarray:
    """Number of the nucleus of each pixel by :func:`spatialwhisperer.pp.nuclei`."""
    from anndata import AnnData
    from skimage.draw import polygon

    library: dict[str, Any] = {"images": {"fullres": image}, "scalefactors": {}}
    adata = AnnData(np.zeros((1, 0), np.float32), uns={"spatial": {"image": library}})
    adata.obsm["spatial"] = np.zeros((1, 2))
    labels = np.zeros(image.shape[:2], np.int64)
    with sw.settings.override(verbose=False, progress=False):
        try:
            frame = sw.pp.nuclei(adata, method=method, mpp=mpp, inplace=False, **options)  # type: ignore[arg-type]
        except ValueError as error:
            if "no nucleus" not in str(error):
                raise
            return labels
    for number, outline in enumerate(frame.geometry, 1):  # type: ignore[union-attr]
        # the middle of a pixel lies half a pixel from its corner
        x, y = np.array(outline.exterior.coords).T - 0.5
        labels[polygon(y, x, labels.shape)] = number
    return labels


def otsu(image: np.ndarray, mpp: float) -> np.ndarray:
    """The usual recipe of scikit-image, for comparison: Otsu's threshold of haematoxylin, and a watershed of the distance."""
    from scipy import ndimage
    from skimage.color import rgb2hed
    from skimage.feature import peak_local_max
    from skimage.filters import gaussian, threshold_otsu
    from skimage.segmentation import watershed

    stain = gaussian(rgb2hed(image)[..., 0], 0.5 / mpp)
    parts = ndimage.label(stain > threshold_otsu(stain))[0]
    mask = (np.bincount(parts.ravel())[parts] * mpp**2 >= 16) & (parts > 0)
    distance = gaussian(ndimage.distance_transform_edt(mask), 0.5 / mpp)
    peaks = peak_local_max(distance, min_distance=round(3 / mpp), labels=parts * mask)
    seeds = np.zeros(mask.shape, np.int64)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-distance, seeds, mask=mask).astype(np.int64)


def count(truth: np.ndarray, found: np.ndarray) -> Counts:
    """Match the found nuclei with the drawn ones. An overlap above 0.5 belongs to one pair alone."""
    n_truth, n_found = int(truth.max()), int(found.max())
    pairs = np.bincount((truth * (n_found + 1) + found).ravel(), minlength=(n_truth + 1) * (n_found + 1))
    common = pairs.reshape(n_truth + 1, n_found + 1)
    drawn, own = common.sum(axis=1), common.sum(axis=0)
    inner = common[1:, 1:]
    overlap = inner / np.maximum(drawn[1:, None] + own[None, 1:] - inner, 1)
    drawn, own = drawn[1:][drawn[1:] > 0], own[1:][own[1:] > 0]
    return Counts(len(drawn), len(own), int((overlap > OVERLAP).sum()), float(np.median(drawn)))


def scores(counts: list[Counts]) -> dict[str, float]:
    """F1 as the mean over images, with the 95 % interval of resampled images, and of all nuclei together; precision and recall."""
    drawn, found, matched = (np.array([getattr(c, name) for c in counts]) for name in ("drawn", "found", "matched"))
    each = 2 * matched / (drawn + found)
    again = np.random.default_rng(0).integers(0, len(each), (N_BOOTSTRAP, len(each)))
    low, high = np.percentile(each[again].mean(axis=1), [2.5, 97.5])
    return {
        "n_images": len(counts),
        "n_nuclei": int(drawn.sum()),
        "f1_mean": float(each.mean()),
        "f1_low": float(low),
        "f1_high": float(high),
        "f1_pooled": float(2 * matched.sum() / (drawn.sum() + found.sum())),
        "precision": float(matched.sum() / max(found.sum(), 1)),
        "recall": float(matched.sum() / drawn.sum()),
    }


def report(result: pd.DataFrame) -> str:
    """The table for people, and what it rests on."""
    shown = pd.DataFrame(
        {
            "images": result["n_images"].astype(str),
            "nuclei": result["n_nuclei"].astype(str),
            "F1, mean over images [95 %]": [
                f"{r.f1_mean:.2f} [{r.f1_low:.2f}, {r.f1_high:.2f}]" for r in result.itertuples()
            ],
            "F1, all nuclei": result["f1_pooled"].map("{:.2f}".format),
            "precision": result["precision"].map("{:.2f}".format),
            "recall": result["recall"].map("{:.2f}".format),
        }
    )
    shown.index = pd.Index([f"{half}: {method}" for half, method in result.index], name="objects at IoU > 0.5")
    return (
        f"{markdown(shown)}\n\nThe files state no scale: {ASSUMED_MPP:g} µm per pixel is assumed for every image, and nothing is estimated "
        "by image. 'Scale from the labels' takes the scale at which the typical drawn nucleus has "
        f"{LABELLED_UM2:g} µm²: what a known scale would be worth, not a result. The images are not independent: several show the same "
        f"tissue.\n{PUBLISHED}"
    )


def _names(data: Path) -> list[str]:
    index = data / "nuclei" / "index.csv"
    if not index.is_file():
        raise FileNotFoundError(f"There is no {str(index)!r}: --data names the folder that holds nuclei/index.csv.")
    return sorted(pd.read_csv(index)["id"].astype(str))


def _picture(data: Path, names: list[str], out: Path, method: str, options: dict[str, Any]) -> None:
    """The first six of these images that fit the assumed scale: found nuclei green, drawn ones yellow."""
    import matplotlib.pyplot as plt

    read_all = (read(data, name) for name in names)
    fit = [(i, t) for i, t in read_all if count(t, t).typical_px * ASSUMED_MPP**2 <= TYPICAL_UM2][:6]

    figure, axes = plt.subplots(2, 3, figsize=(9, 5), layout="constrained")
    for axis in axes.ravel():
        axis.axis("off")
    for axis, (image, truth) in zip(axes.ravel(), fit, strict=False):
        axis.imshow(image)
        for labels, colour in ((truth, "#ffd400"), (find(image, ASSUMED_MPP, method, **options), "#00c853")):
            for number in np.unique(labels[labels > 0]):
                axis.contour(labels == number, levels=[0.5], colors=colour, linewidths=0.8)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "nuclei.png", dpi=110)
    plt.close(figure)
