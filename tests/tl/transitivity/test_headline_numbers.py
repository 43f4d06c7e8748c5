"""Each number of the report, computed a second time from its description, in plain NumPy, SciPy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier

from spatialwhisperer.models.reference import Reference, ReferenceConfig
from spatialwhisperer.statistics.intervals.spatial import SpatialErrors
from spatialwhisperer.tl._transitivity import estimates
from spatialwhisperer.tl._transitivity.estimates import Report, Rows

# As many rows as the reference has, so that no sample is drawn
N, U, SEED = 60, 8, 5


def unit(z: np.ndarray) -> np.ndarray:
    return z / np.sqrt((z**2).sum(axis=1, keepdims=True))


RNG = np.random.default_rng(3)
TEXT = unit(RNG.normal(size=(3, U)))
LABEL = RNG.integers(0, 3, N)
SECTION = np.repeat(["s", "t"], [35, 25])
BLOCK = np.arange(N) // 4
GENE = unit(TEXT[LABEL] + 0.35 * RNG.normal(size=(N, U)) + 0.4 * (SECTION == "t")[:, None])
IMAGE = unit(0.7 * GENE + 0.3 * RNG.normal(size=(N, U)) + 0.3)
EXCESS = RNG.uniform(0.1, 0.6, N)
FEATURES = RNG.normal(size=(N, 4)) * 1.3

PATIENT = np.arange(N) // 10
OF_CAPTION = RNG.integers(0, 5, N)
CAPTION = unit(RNG.normal(size=(5, U)))
KNOWN = unit(TEXT[RNG.integers(0, 3, N)] + 0.3 * RNG.normal(size=(N, U)) + 0.2 * CAPTION[OF_CAPTION])
USUAL = np.linspace(0.1, 0.5, 41)
SAMPLE = RNG.normal(size=(50, 4))


@pytest.fixture(scope="module")
def report() -> Report:
    arrays = {
        "text_bridge": KNOWN,
        "text_caption": OF_CAPTION,
        "text_group": PATIENT,
        "caption": CAPTION,
        "excess_cross_entropy": USUAL,
        "feature_sample": SAMPLE,
    }
    reference = Reference(ReferenceConfig(captions=tuple("abcde")), arrays)
    rows = Rows(IMAGE, GENE, SECTION, BLOCK, SpatialErrors(None, SECTION), EXCESS)
    out = Report(["a", "b", "c"])
    estimates.add_headlines(out, rows, reference, TEXT)
    estimates.add_links(out, rows)
    estimates.add_bridge(out, rows, reference, SEED)
    estimates.add_gene_text(out, reference)
    estimates.add_prompts(out, rows, TEXT)
    estimates.add_chain(out, rows, reference)
    estimates.add_image(out, rows, reference, FEATURES, [])
    return out


# ------------------------------------------------------------------------------------------------- a second time


def within_sections(z: np.ndarray) -> np.ndarray:
    """Scores of the labels, minus their mean over the section."""
    scores = z @ TEXT.T
    return np.vstack([scores[SECTION == name] - scores[SECTION == name].mean(axis=0) for name in ("s", "t")])


def off_mean(z: np.ndarray) -> np.ndarray:
    return unit(z - z.mean(axis=0))


def fifth_radius(reference: np.ndarray) -> np.ndarray:
    radius = np.sort(cdist(reference, reference), axis=1)[:, 5]  # the row itself comes first
    return np.minimum(radius, np.quantile(radius, 0.95))


def reached(rows: np.ndarray, reference: np.ndarray) -> float:
    return float((cdist(rows, reference) <= fifth_radius(reference)).any(axis=1).mean())


def told_apart(method: str) -> float:
    """AUROC of held-out probabilities: five folds that keep blocks (and, of training rows, patients) together."""
    x, own = np.vstack([GENE, KNOWN]), np.repeat([True, False], N)
    blocks = np.r_[BLOCK, PATIENT + BLOCK.max() + 1]
    scores = np.zeros(2 * N)
    for fit, test in StratifiedGroupKFold(5, shuffle=True, random_state=SEED).split(x, own, blocks):
        y = x
        if method == "knn":
            model = KNeighborsClassifier(15)
        else:
            y = x / x[fit].std(axis=0)
            model = LogisticRegression(C=0.1, max_iter=500)
        scores[test] = model.fit(y[fit], own[fit]).predict_proba(y[test])[:, 1]
    return float(roc_auc_score(own, scores))


def own_rank(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Mean over rows of the others of the section that are further than the partner, and of the partner among ten."""
    above, found = [], []
    for name in ("s", "t"):
        similar = a[SECTION == name] @ b[SECTION == name].T
        ranks = np.array([rankdata(-row)[i] for i, row in enumerate(similar)])
        above += list(1 - (ranks - 1) / (len(ranks) - 1))
        found += list(ranks <= 10)
    return float(np.mean(above)), float(np.mean(found))


def mixed() -> float:
    """Training rows among the 15 nearest of each row, over their proportion among all others."""
    x = np.vstack([GENE, KNOWN])
    near = np.argsort(cdist(GENE, x), axis=1)[:, 1:16]
    return float((near >= N).mean() / (N / (2 * N - 1)))


def best_agreement() -> float:
    best = within_sections(GENE).argmax(axis=1)
    return float(np.mean([roc_auc_score(best == c, within_sections(IMAGE)[:, c]) for c in range(3)]))


def covered() -> float:
    between = cdist(KNOWN, KNOWN)
    between[PATIENT[:, None] == PATIENT] = np.inf
    near = cdist(GENE, KNOWN).min(axis=1) <= np.quantile(between.min(axis=1), 0.95)
    return float((near & (np.quantile(USUAL, 0.95) >= EXCESS)).mean())


def one_minus_cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return 1 - np.array([x @ y for x, y in zip(a, b, strict=True)])


NEAREST = cdist(GENE, KNOWN).argmin(axis=1)
LINKS = (
    one_minus_cosine(IMAGE, GENE),
    one_minus_cosine(GENE, KNOWN[NEAREST]),
)
CENTRED = off_mean(GENE), off_mean(KNOWN)
BEST = [within_sections(z).argmax(axis=1) for z in (IMAGE, GENE)]
EXPECTED = {
    "transitive_consistency": best_agreement(),
    "coverage": covered(),
    "label_kappa": cohen_kappa_score(*BEST),
    "image_gene_error": LINKS[0].mean(),
    "image_gene_error_centred": one_minus_cosine(off_mean(IMAGE), off_mean(GENE)).mean(),
    "image_gene_rank": own_rank(off_mean(IMAGE), off_mean(GENE))[0],
    "image_gene_recall_10": own_rank(off_mean(IMAGE), off_mean(GENE))[1],
    "bridge_error": LINKS[1].mean(),
    "bridge_error_centred": (cdist(*CENTRED).min(axis=1) ** 2 / 2).mean(),
    "bridge_auroc": told_apart("logistic"),
    "bridge_auroc_knn": told_apart("knn"),
    "bridge_mixing": mixed(),
    "bridge_reach": reached(GENE, KNOWN),
    "bridge_reach_centred": reached(*CENTRED),
    "expression_cross_entropy": EXCESS.mean(),
    "gene_text_error": one_minus_cosine(KNOWN, CAPTION[OF_CAPTION]).mean(),
    "gene_text_rank": np.mean(
        [1 - (rankdata(-r)[c] - 1) / 4 for r, c in zip(KNOWN @ CAPTION.T, OF_CAPTION, strict=True)]
    ),
    "prompt_margin": np.sort(cdist(TEXT, TEXT), axis=1)[:, 1].min(),
    "largest_hub": np.bincount((IMAGE @ TEXT.T).argmax(axis=1)).max() / N,
    "chain_error": one_minus_cosine(IMAGE, CAPTION[OF_CAPTION[NEAREST]]).mean(),
    "image_coverage": reached(FEATURES, SAMPLE),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_number_of_the_report_is_what_its_description_says(name: str, report: Report) -> None:
    assert report.quantities[name][0] == pytest.approx(EXPECTED[name], abs=1e-9)


def test_no_two_numbers_are_the_same() -> None:
    """No two of them are the same, so that none can stand in for another."""
    values = np.sort([float(v) for v in EXPECTED.values()])
    assert np.diff(values).min() > 1e-4


def test_the_report_has_no_other_numbers(report: Report) -> None:
    assert set(report.quantities) == set(EXPECTED) | {"bridge_mmd_p"}


def test_the_discrepancy_of_two_samples_is_significant_where_they_differ(report: Report) -> None:
    """Squared discrepancy written out; no permutation of 200 comes near it."""
    x = np.vstack([GENE, KNOWN])
    between = cdist(x, x)
    kernel = np.exp(-(between**2) / (2 * np.median(between[~np.eye(2 * N, dtype=bool)]) ** 2))
    same = [(part.sum() - N) / (N * (N - 1)) for part in (kernel[:N, :N], kernel[N:, N:])]
    assert report.attrs["bridge_mmd"] == pytest.approx(sum(same) - 2 * kernel[:N, N:].mean())
    assert report.quantities["bridge_mmd_p"][0] == pytest.approx(1 / 201)
