"""The report: one page that tells what predictions rest on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.explain_model.contributions import Contributions
from components.explain_model.material import Material, losses
from components.explain_model.texts import MISSING, missing, text_of
from components.explain_model.weak_slices import Search
from components.features import Label
from components.model_spec import ModelSpec
from components.reports import render
from components.settings import Explanation
from components.shapley import Array

DEPENDENCES = 6
"""Features whose contributions are drawn against their values."""
_MOST_BARS = 12
_FEW_VALUES = 8
_STEPS = 8
_SHADES = 5
_BINS = 120
_MOST_STACKED = 9
_Z = 1.96


@dataclass(frozen=True)
class Dot:
    """A row in a picture: across and up in [0, 1]; shade 0 (low) to 4 (high), or -1: no order."""

    x: float
    y: float
    shade: int


@dataclass(frozen=True)
class FeatureLine:
    """A line of the table of features."""

    name: str
    importance: float
    reach: float | None
    """Half of the 95 % interval; None: one row is no sample."""
    share: float
    """Of all features' importance."""
    dots: Sequence[Dot]


@dataclass(frozen=True)
class Bar:
    """Rows with one value of a feature."""

    text: str
    rows: int
    mean: float
    reach: float


@dataclass(frozen=True)
class Dependence:
    """How a feature's contribution depends on its value: points, bars, or both."""

    name: str
    points: Sequence[tuple[float, float]]
    bars: Sequence[Bar]
    x: tuple[float, float]
    ends: tuple[str, str]
    """The limits of x as text."""
    y: tuple[float, float]


@dataclass(frozen=True)
class Step:
    """A feature's place on the way from the reference to the prediction."""

    text: str
    start: float
    end: float

    @property
    def share(self) -> float:
        """What it contributes."""
        return self.end - self.start


@dataclass(frozen=True)
class RowStory:
    """One row, explained."""

    title: str
    position: int
    prediction: float
    reference: float
    actual: str
    output: str
    """What the prediction is, e.g. the class whose probability it is."""
    steps: Sequence[Step]
    limits: tuple[float, float]


@dataclass(frozen=True)
class Words:
    """How the page calls things."""

    explained: str
    unit: str
    unit_at_length: str
    loss: str
    mean_loss: str
    weakest: str = "Where the model is weakest"


def page(
    material: Material, contributions: Contributions, weak: Search, spec: ModelSpec, explanation: Explanation
) -> str:
    """Renders the report."""
    return render(
        Path(__file__).parent / "report.html.jinja",
        label=spec.label,
        words=_words(spec, material),
        material=material,
        contributions=contributions,
        one_reference=bool(np.ptp(contributions.references) == 0),
        features=_features(material, contributions, explanation.top_features),
        hidden=max(0, len(contributions.features) - explanation.top_features),
        limits=_span(contributions.shares),
        dependences=_dependences(material, contributions),
        stories=_stories(material, contributions, spec),
        weak=weak,
        min_slice_rows=explanation.min_slice_rows,
        mean_error=None if contributions.errors is None else float(contributions.errors.mean()),
        mean_fit=None if contributions.fit is None else float(contributions.fit.mean()),
        gap=float(np.abs(contributions.gaps).max()),
    )


def _features(material: Material, contributions: Contributions, most: int) -> list[FeatureLine]:
    importance, total = contributions.importance, float(contributions.importance.sum())
    low, high = _span(contributions.shares)
    rows = len(contributions.shares)
    lines = []
    for feature in contributions.order[:most]:
        shares, name = contributions.shares[:, feature], contributions.features[feature]
        lines.append(
            FeatureLine(
                name=name,
                importance=float(importance[feature]),
                reach=float(_Z * np.abs(shares).std(ddof=1) / np.sqrt(rows)) if rows > 1 else None,
                share=float(importance[feature] / total) if total else 0.0,
                dots=_swarm((shares - low) / ((high - low) or 1), _shades(material.explained_rows[name])),
            )
        )
    return lines


def _span(values: Array) -> tuple[float, float]:
    return min(float(values.min()), 0.0), max(float(values.max()), 0.0)


def _shades(values: Array) -> Array:
    """Gives each row's shade by the rank of its value; -1 for categories and missing values."""
    shades = np.full(len(values), -1)
    if values.dtype == object:
        return shades
    known = ~missing(values)
    if known.any():
        edges = np.quantile(values[known].astype(np.float64), np.arange(1, _SHADES) / _SHADES)
        shades[known] = np.searchsorted(edges, values[known])
    return shades


def _swarm(x: Array, shades: Array) -> list[Dot]:
    """Stacks rows that lie close together above and below the middle line."""
    bins = np.minimum((x * _BINS).astype(int), _BINS - 1)
    order = np.lexsort((shades, bins))
    _, first, counts = np.unique(bins[order], return_index=True, return_counts=True)
    rank = np.arange(len(x)) - np.repeat(first, counts)
    of = np.repeat(counts, counts)
    step = 1 / np.maximum(of, _MOST_STACKED)
    height = 0.5 + (rank - (of - 1) / 2) * step
    return [Dot(float(x[i]), float(y), int(shades[i])) for i, y in zip(order, height, strict=True)]


def _dependences(material: Material, contributions: Contributions) -> list[Dependence]:
    rows = material.explained_rows
    chosen = [feature for feature in contributions.order if contributions.importance[feature] > 0][:DEPENDENCES]
    names = [contributions.features[feature] for feature in chosen]
    return [
        _dependence(name, rows[name], contributions.shares[:, feature], name in material.times)
        for name, feature in zip(names, chosen, strict=True)
    ]


def _dependence(name: str, values: Array, shares: Array, is_time: bool) -> Dependence:
    absent = missing(values)
    known = values[~absent]
    limits = _span(shares)
    if values.dtype == object or len(np.unique(known)) <= _FEW_VALUES:
        return Dependence(name, [], _bars(values, absent, shares, is_time), (0, 1), ("", ""), limits)
    low, high = known.min(), known.max()
    return Dependence(
        name=name,
        points=list(zip(known.astype(float).tolist(), shares[~absent].tolist(), strict=True)),
        bars=[_bar(MISSING, shares[absent])] if absent.any() else [],
        x=(float(low), float(high)),
        ends=(text_of(low, is_time), text_of(high, is_time)),
        y=limits,
    )


def _bars(values: Array, absent: Array, shares: Array, is_time: bool) -> list[Bar]:
    present, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    if values.dtype.kind == "f" and absent.any():  # numpy takes all NaN for one value, the last
        codes[absent] = len(present) - 1
    frequent = np.argsort(-counts, kind="stable")
    shown = frequent[: _MOST_BARS - 1] if len(frequent) > _MOST_BARS else frequent
    bars = [_bar(text_of(present[code], is_time), shares[codes == code]) for code in shown.tolist()]
    bars.sort(key=lambda bar: -bar.mean)
    rest = ~np.isin(codes, shown)
    if rest.any():
        bars.append(_bar(f"{len(frequent) - len(shown):,} others", shares[rest]))
    return bars


def _bar(text: str, shares: Array) -> Bar:
    reach = _Z * shares.std(ddof=1) / np.sqrt(len(shares)) if len(shares) > 1 else 0.0
    return Bar(text, len(shares), float(shares.mean()), float(reach))


def _stories(material: Material, contributions: Contributions, spec: ModelSpec) -> list[RowStory]:
    """Tells of a usual row, extreme ones, and those that went most wrong."""
    values, labels = contributions.values, material.labels[material.explained]
    kind = spec.label.kind
    loss = losses(np.nan_to_num(labels), material.scores[material.explained], kind, spec.decision_threshold)
    if kind == "anomaly_detection":  # of those on the wrong side of the threshold, the farthest
        loss = np.abs(np.nan_to_num(labels) - material.scores[material.explained][:, 0])
    chosen: dict[int, str] = {}

    def choose(title: str, order: Array, among: Array) -> None:
        free = [int(row) for row in order if among[row] and int(row) not in chosen]
        if free:
            chosen[free[0]] = title

    all_rows, known = np.ones(len(values), bool), ~np.isnan(labels)
    choose("A usual prediction", np.argsort(np.abs(values - np.median(values)), kind="stable"), all_rows)
    choose("The highest prediction", np.argsort(-values, kind="stable"), all_rows)
    choose("The lowest prediction", np.argsort(values, kind="stable"), all_rows)
    worst = np.argsort(-loss, kind="stable")
    if kind == "multiclass":
        choose("Most wrong", worst, known)
        choose("Most wrong but one", worst, known)
    elif kind != "clustering":
        scores = material.scores[material.explained][:, 0]
        choose("Most wrong: too high", worst, known & (scores > labels))
        choose("Most wrong: too low", worst, known & (scores < labels))
    return [_story(title, row, material, contributions, spec) for row, title in chosen.items()]


def _story(title: str, row: int, material: Material, contributions: Contributions, spec: ModelSpec) -> RowStory:
    shares = contributions.shares[row]
    order = np.argsort(-np.abs(shares), kind="stable")
    rows = material.explained_rows
    at = float(contributions.references[row])
    reference, steps = at, []
    for feature in order[:_STEPS].tolist():
        name = contributions.features[feature]
        value = text_of(rows[name][row], name in material.times)
        steps.append(Step(f"{name} = {value}", at, at + float(shares[feature])))
        at = steps[-1].end
    if len(order) > _STEPS:
        rest = float(shares[order[_STEPS:]].sum())
        steps.append(Step(f"{len(order) - _STEPS:,} other features", at, at + rest))
    ends = [reference, float(contributions.values[row]), *(step.end for step in steps)]
    number = material.labels[material.explained[row]]
    return RowStory(
        title=title,
        position=int(material.positions[material.explained[row]]),
        prediction=float(contributions.values[row]),
        reference=reference,
        actual=_actual(number, spec.label),
        output=_output(int(material.chosen[material.explained[row]]), spec),
        steps=steps,
        limits=(min(ends), max(ends)),
    )


def _actual(number: float, label: Label) -> str:
    if np.isnan(number):
        return "unknown"
    return f"{number:,.6g}" if label.kind == "regression" else label.classes[int(number)]


def _output(chosen: int, spec: ModelSpec) -> str:
    label = spec.label
    match label.kind:
        case "regression":
            return str(label.name)
        case "anomaly_detection":
            return "score"
        case "clustering":
            return f"distance to the centre of cluster {chosen}"
        case _:
            return f"probability of {label.classes[1 if label.kind == 'binary' else chosen]}"


def _words(spec: ModelSpec, material: Material) -> Words:
    label = spec.label
    match label.kind:
        case "regression":
            name = str(label.name)
            return Words(f"predictions of {name}", name, f"that of {name}", "Mean error", "mean absolute error")
        case "clustering":
            return Words(
                *("distances to cluster centres", "distance", "the distance to the centre of the row's cluster"),
                *("Mean distance", "mean distance", "Where rows fit worst into their clusters"),
            )
        case "anomaly_detection" if np.isnan(material.labels).all():
            return Words(
                *("anomaly scores", "score", "the score, 0 to 1", "Mean score", "mean score"),
                "Where rows are most unusual",
            )
        case "anomaly_detection":
            return Words("anomaly scores", "score", "the score, 0 to 1", "Wrong", "share on the wrong side")
        case _:
            return Words(f"predictions of {label.name}", "probability", "probability", "Log loss", "log loss")
