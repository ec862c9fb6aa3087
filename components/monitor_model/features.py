"""What each feature of a window looks like beside the training data and beside the windows before."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from components.monitor_model.distances import Measured, measure, proportions, share_interval, significant
from components.monitoring_record import Distance, Estimate, FeatureFacts, MissingFacts, NewValueFacts
from components.profiles import CategoryProfile, ColumnProfile, Profile, cells, comparable

_SEED = 17
_EXAMPLES = 5


@dataclass(frozen=True)
class _Tested:
    """A distance that was measured, but not yet judged beside all others."""

    against: str
    rows: int
    measured: Measured

    def judged(self, is_significant: bool) -> Distance:
        value, low, high = self.measured.jensen_shannon
        largest, least, most = self.measured.l_infinity
        return Distance(
            against=self.against,
            rows=self.rows,
            jensen_shannon=Estimate(value=value, low=low, high=high),
            l_infinity=Estimate(value=largest, low=least, high=most),
            p_value=self.measured.p_value,
            significant=is_significant,
        )


class Tests:
    """Collects all tests of a window, as their number decides which of them are significant."""

    def __init__(self, error_rate: float) -> None:
        self._rate = error_rate
        self._p_values: list[float] = []

    def add(self, p_value: float) -> int:
        """Takes a test and gives its number."""
        self._p_values.append(p_value)
        return len(self._p_values) - 1

    def significant(self) -> list[bool]:
        """Tells of each test whether it is significant."""
        return [bool(one) for one in significant(np.array(self._p_values), self._rate)]


def distance(
    one: ColumnProfile, others: Sequence[ColumnProfile], against: str, min_rows: int
) -> tuple[str, int, Measured] | None:
    """Measures how far a column is from others, taken together; None: too few rows, or none that can be compared."""
    alike = [other for other in others if comparable(one, other)]
    if not alike:
        return None
    counts, other = np.array(cells(one)), np.sum([cells(other) for other in alike], axis=0)
    if counts.sum() < min_rows or other.sum() < min_rows:
        return None
    return against, int(other.sum()), measure(counts, other, _SEED)


def single_distance(
    one: ColumnProfile, others: Sequence[ColumnProfile], against: str, min_rows: int, error_rate: float
) -> Distance | None:
    """Measures how far a column is from others, as the only test; None: too few rows, or nothing to compare with."""
    found = distance(one, others, against, min_rows)
    return _Tested(*found).judged(found[2].p_value <= error_rate) if found else None


def compare(
    window: Profile,
    unknown_values: Mapping[str, Counter[str]],
    training: Profile,
    before: Sequence[Mapping[str, ColumnProfile]],
    windows: str,
    min_rows: int,
    error_rate: float,
) -> dict[str, FeatureFacts]:
    """Holds the features of a window against the training data and the windows before.

    Args:
        window: counts over the bins and values of the training data.
        unknown_values: of each category, values that training did not see.
        training: counts of the train split.
        before: the features of windows before.
        windows: their names, for the record.
        min_rows: with fewer, distances are not measured.
        error_rate: share of false ones among the significant differences.
    """
    tests = Tests(error_rate)
    distances: dict[str, list[tuple[_Tested, int] | None]] = {}
    missing: dict[str, tuple[float, int]] = {}
    for name, own in window.columns.items():
        known = training.columns[name]
        earlier = [one[name] for one in before if name in one]
        distances[name] = []
        for found in (distance(own, [known], "training", min_rows), distance(own, earlier, windows, min_rows)):
            tested = _Tested(*found) if found else None
            distances[name].append((tested, tests.add(tested.measured.p_value)) if tested else None)
        p_value = proportions(own.missing, window.rows, known.missing, training.rows)
        missing[name] = (p_value, tests.add(p_value))
    verdicts = tests.significant()
    facts = {}
    for name, own in window.columns.items():
        skew, drift = (one[0].judged(verdicts[one[1]]) if one else None for one in distances[name])
        p_value, number = missing[name]
        facts[name] = FeatureFacts(
            profile=own,
            missing=MissingFacts(
                share=_share(own.missing, window.rows),
                training=training.columns[name].missing / max(training.rows, 1),
                p_value=p_value,
                significant=verdicts[number],
            ),
            skew=skew,
            drift=drift,
            new_values=_new_values(own, unknown_values.get(name, Counter())),
        )
    return facts


def _new_values(own: ColumnProfile, unknown: Counter[str]) -> NewValueFacts | None:
    if not isinstance(own, CategoryProfile) or not own.complete:
        return None
    frequent = sorted(unknown.items(), key=lambda one: (-one[1], one[0]))[:_EXAMPLES]
    return NewValueFacts(
        share=_share(own.others, sum(own.counts) + own.others),
        examples=[f"{_short(value)} ({rows:,} rows)" for value, rows in frequent],
    )


def _share(hits: int, rows: int) -> Estimate:
    low, high = share_interval(hits, rows)
    return Estimate(value=hits / rows if rows else None, low=low, high=high)


def _short(value: str) -> str:
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in value[:60])
    return text if len(value) <= 60 else f"{text}…"
