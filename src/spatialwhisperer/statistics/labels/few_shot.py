"""A classifier of a few labelled rows that starts from the scores of words."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

WORDS = 0.25
"""The words weigh as much as a quarter of an example. On real sections one example of each class already ranks and labels better than
words do, and a larger weight, or one that is chosen by leaving out examples, makes labels worse than examples alone."""

PENALTIES = (1.5, 0.5, 0.17)
"""Penalties that are tried, times the number of examples."""

_DEFAULT = 0.5
_OFFSET = 0.02
_FOLDS = 30


class FewShot(NamedTuple):
    """A fitted classifier.

    Attributes
    ----------
    words
        Weight of the standardised scores of the words.
    coefficients
        Shape (classes, u).
    offset
        Of each class, shape (classes,).
    penalty
        That was chosen.
    """

    words: float
    coefficients: np.ndarray
    offset: np.ndarray
    penalty: float

    def logits(self, x: np.ndarray, prior: np.ndarray) -> np.ndarray:
        """Logits of the classes, shape (n, classes), for rows (n, u) and the standardised scores of words (n, classes)."""
        return self.words * prior + x @ self.coefficients.T + self.offset


def fit_few_shot(x: np.ndarray, prior: np.ndarray, code: np.ndarray) -> FewShot:
    """Multinomial logistic regression with an offset for each class, shrunk towards the scores of the words.

    The logit of a class is ``words * prior + x · coefficients + offset``. Each class has the same weight in the likelihood, however many
    examples it has. ``words`` is 0.25 divided by the mean number of examples of a class. The squared coefficients are penalised; the
    penalty is the one at which examples that are left out, one by one, are most likely.

    Parameters
    ----------
    x
        Embeddings of the examples, of mean 0 and mean squared length 1 over their section; shape (m, u).
    prior
        Scores of the words, standardised over the section, shape (m, classes).
    code
        Class of each example, shape (m,); every class has one.

    Examples
    --------
    >>> import numpy as np
    >>> from spatialwhisperer.statistics.labels.few_shot import fit_few_shot
    >>> rng = np.random.default_rng(0)
    >>> truth = np.repeat([0, 1], 50)
    >>> x = np.where(truth == 0, 1.0, -1.0)[:, None] * [1.0, 0.0] + rng.normal(0, 0.5, (100, 2))
    >>> shown, no_words = [0, 1, 2, 50, 51, 52], np.zeros((100, 2))
    >>> fitted = fit_few_shot(x[shown], no_words[shown], truth[shown])
    >>> float((fitted.logits(x, no_words).argmax(axis=1) == truth).mean()) > 0.9
    True
    """
    words = WORDS / (len(code) / len(np.unique(code)))
    tried = {penalty: _left_out_loss(x, words * prior, code, penalty / len(code)) for penalty in PENALTIES}
    defined = {penalty: loss for penalty, loss in tried.items() if np.isfinite(loss)}
    penalty = min(defined, key=lambda one: defined[one]) if defined else _DEFAULT
    coefficients, offset = _fit(x, words * prior, code, penalty / len(code))
    return FewShot(words, coefficients, offset, penalty)


def standardized(scores: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Scores without the mean of their label and of their row, and of mean square 1 over the rows that are whole."""
    out = scores - scores[whole].mean(axis=0)
    out = out - out.mean(axis=1, keepdims=True)
    return out / max(float(np.sqrt((out[whole] ** 2).mean())), 1e-12)


def _left_out_loss(x: np.ndarray, start: np.ndarray, code: np.ndarray, penalty: float) -> float:
    """Mean over classes of the negative log-likelihood of examples that were left out; NaN where no class can spare one."""
    fold = np.arange(len(code)) % _FOLDS
    loss, weight = np.zeros(len(code)), np.zeros(len(code))
    for number in np.unique(fold):
        rest = fold != number
        # a class whose examples are all left out is not known
        out = np.flatnonzero(~rest & np.isin(code, code[rest]))
        if len(out) and len(np.unique(code[rest])) == len(np.unique(code)):
            coefficients, offset = _fit(x[rest], start[rest], code[rest], penalty)
            logits = start[out] + x[out] @ coefficients.T + offset
            loss[out] = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(out)), code[out]]
            weight[out] = 1 / np.bincount(code)[code[out]]
    return float((loss * weight).sum() / weight.sum()) if weight.any() else np.nan


def _fit(x: np.ndarray, start: np.ndarray, code: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    n_classes, width = start.shape[1], x.shape[1]
    truth = np.eye(n_classes)[code]
    weights = 1 / np.bincount(code, minlength=n_classes)[code]
    weights = weights / weights.sum()

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        coefficients, offset = values[: n_classes * width].reshape(n_classes, width), values[n_classes * width :]
        log_p = log_softmax(start + x @ coefficients.T + offset, axis=1)
        wrong = (np.exp(log_p) - truth) * weights[:, None]
        value = -float((weights * (log_p * truth).sum(axis=1)).sum())
        value += penalty * float((coefficients**2).sum()) + _OFFSET * float(offset @ offset)
        return value, np.concatenate(
            [(wrong.T @ x + 2 * penalty * coefficients).ravel(), wrong.sum(axis=0) + 2 * _OFFSET * offset]
        )

    found = minimize(loss, np.zeros(n_classes * (width + 1)), jac=True, method="L-BFGS-B", options={"maxiter": 100}).x
    return found[: n_classes * width].reshape(n_classes, width), found[n_classes * width :]
