"""Other texts that say the same as a caption, or that it is not true, as positions among the text inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._messages import listing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

N_FOLDS = 5
"""Parts of the wordings of a caption that are left out in turn."""


@dataclass(frozen=True)
class Wordings:
    """Which text says what of which caption.

    Attributes
    ----------
    n_captions
        Number of captions; they are the first text inputs.
    text, caption
        Position of a text among the inputs, and of a caption it speaks of, each of shape (k,).
    negated
        Whether it says that the caption is not true, shape (k,).
    """

    n_captions: int
    text: np.ndarray
    caption: np.ndarray
    negated: np.ndarray

    def of_captions(self) -> list[np.ndarray]:
        """Positions of the texts that say that a caption is true, the caption first, one array for each caption."""
        return [np.r_[i, self.text[(self.caption == i) & ~self.negated]] for i in range(self.n_captions)]

    def states(self, n_texts: int) -> tuple[np.ndarray, np.ndarray]:
        """Which captions a text speaks of, Boolean (n_texts, c), and whether it says that they are not true (n_texts,)."""
        out, negated = np.eye(n_texts, self.n_captions, dtype=bool), np.zeros(n_texts, bool)
        out[self.text, self.caption] = True
        negated[self.text] = self.negated
        return out, negated

    def folds(self) -> np.ndarray:
        """Fold of each text input, shape (n_texts,); -1 for captions.

        The list of a caption is cut into `N_FOLDS` parts in its order, because texts that are alike often stand next to each other. A
        text of several captions is where the first of them puts it.
        """
        fold = np.full(int(self.text.max(initial=self.n_captions - 1)) + 1, -1)
        for i in range(self.n_captions):
            for negated in (False, True):
                texts = self.text[(self.caption == i) & (self.negated == negated)]
                new = texts[(texts >= self.n_captions) & (fold[texts] < 0)]
                fold[new] = np.arange(len(new)) * N_FOLDS // max(len(new), 1)
        return fold


def place_wordings(
    captions: Sequence[str], wordings: Mapping[str, Sequence[str]], negated: Mapping[str, Sequence[str]]
) -> tuple[list[str], Wordings | None]:
    """All texts, the captions first, and which of them says what of which caption; ``None`` where there are captions alone.

    Parameters
    ----------
    captions
        Captions of the rows.
    wordings, negated
        Caption to texts that say the same, and to texts that say that it is not true.

    Raises
    ------
    ValueError
        If a caption is none of the rows', or a text says that one caption is true and another is not.
    """
    unknown = [c for c in (*wordings, *negated) if c not in set(captions)]
    if unknown:
        raise ValueError(
            f"Wordings are given for {listing(dict.fromkeys(map(repr, unknown)), 4)}, which no row has as a caption "
            f"(captions: {listing(map(repr, captions), 6)})."
        )
    place = {caption: i for i, caption in enumerate(captions)}
    stated = [(c, text.strip(), no) for no, of in ((False, wordings), (True, negated)) for c in of for text in of[c]]
    both = {t for c, t, no in stated if no} & {*captions, *(t for c, t, no in stated if not no)}
    if both:
        raise ValueError(
            f"{listing(sorted(map(repr, both)), 4)} cannot say both that a caption is true and that one is not. Leave it out of "
            "wordings or of negated."
        )
    rows = list(dict.fromkeys((place.setdefault(t, len(place)), place[c], no) for c, t, no in stated if t != c))
    if not rows:
        return list(captions), None
    text, caption, no = map(np.array, zip(*rows, strict=True))
    return list(place), Wordings(len(captions), text, caption, no)
