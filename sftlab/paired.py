"""Two models on the same questions: the difference, question by question, with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats


def paired_difference(
    before: Sequence[float], after: Sequence[float], confidence: float = 0.95, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """The mean of after − before over the same questions, and its interval.

    The interval is ``scipy.stats.bootstrap``'s (percentile, 5,000 resamples) of the *differences*:
    a question that is hard for both models adds nothing to the uncertainty, which two separate
    intervals would count twice.
    """
    differences = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    mean = float(differences.mean())
    if np.ptp(differences) == 0:  # every resample is the same
        return mean, (mean, mean)
    found = stats.bootstrap(
        (differences,), np.mean, confidence_level=confidence, n_resamples=5000,
        method="percentile", batch=500, rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return mean, (float(found.low), float(found.high))


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> tuple[int, int, float]:
    """McNemar's exact test: questions won, questions lost, and the p-value.

    Only questions on which the two differ say which is better. If neither were, each of them would
    be a fair coin: the p-value is the two-sided binomial one (McNemar, 1947).
    """
    pairs = list(zip(before, after, strict=True))
    won = sum(not b and a for b, a in pairs)
    lost = sum(b and not a for b, a in pairs)
    return won, lost, stats.binomtest(won, won + lost).pvalue if won + lost else 1.0


def clustered_difference(
    before: Sequence[float],
    after: Sequence[float],
    clusters: Sequence[str],
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, tuple[float, float]]:
    """As `paired_difference`, for questions that come in clusters: kinds of question, say.

    Questions of one kind fail together, so they are no independent evidence. Here whole clusters are
    resampled: SciPy's bootstrap of the clusters' mean differences, each counting the same (Miller,
    2024, arXiv:2411.00640, on clustered errors of evaluations).
    """
    names = np.asarray(clusters)
    differences = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    means = [differences[names == name].mean() for name in sorted(set(clusters))]
    return paired_difference([0.0] * len(means), means, confidence, seed)
