"""What is known about a published model: one card a version, and how two cards differ."""

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict

from components.artifacts import SourceFile


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataFacts(_Record):
    """The rows that the model was trained and judged on."""

    source: str
    """As configured: a path or URI, with its wildcards."""
    spans: list[str]
    digest: str
    """SHA-256 of the dataset, from its manifest."""
    splits: dict[str, int]
    """Rows of each split."""
    files: list[SourceFile]


class SliceFacts(_Record):
    """How the model does on one slice."""

    name: str
    """e.g. carrier=UA, origin=JFK."""
    rows: int
    metrics: dict[str, float | None]


class CheckFacts(_Record):
    """One condition that the model had to meet."""

    name: str
    passed: bool
    detail: str
    """Value and limit, in words."""


class EvaluationFacts(_Record):
    """What evaluation found."""

    verdict: str
    reason: str
    metrics: dict[str, float | None]
    intervals: dict[str, tuple[float, float]]
    """Confidence interval of a metric: low, high."""
    slices: list[SliceFacts]
    checks: list[CheckFacts]
    decision_threshold: float | None
    """The score from which a row counts as positive; None: not a binary task."""


class CodeFacts(_Record):
    """The code that made the model."""

    version: str
    registry: str
    image_tag: str
    """Of the images that the stages ran in, or whose twins they ran in."""
    details: dict[str, Any]
    """What the command line adds, e.g. the commit."""
    locks: dict[str, str]
    """Digest of each image's lock file."""
    libraries: dict[str, str]
    """Versions that the model was exported with."""


class ModelFacts(_Record):
    """What is known about a model before it has a version."""

    description: str
    owner: str
    run_name: str
    model_digest: str
    """Of what decides how the model answers; models with one digest are the same model."""
    inputs_digest: str
    """Of everything that decided the result of the run."""
    parent: str | None
    """The version in production when the run started; None: there was none."""
    data: DataFacts
    schema_digest: str
    evaluation: EvaluationFacts
    code: CodeFacts
    config: dict[str, Any]
    """The whole pipeline.yaml."""
    model: dict[str, Any] = {}
    """Kind and hyperparameters, as they were chosen."""


class ModelCard(ModelFacts):
    """What is known about a published model."""

    name: str
    version: str
    created: AwareDatetime
    """UTC."""
    files: dict[str, str]
    """SHA-256 of each file, by its path in the version's folder."""


class Change(_Record):
    """One value that two cards do not share."""

    topic: str
    """metrics, slices, checks, data, schema, config, code or model."""
    key: str
    before: Any
    """None: not there."""
    after: Any
    """None: not there."""


def changes(before: ModelCard, after: ModelCard) -> list[Change]:
    """Lists what differs between two models, topic by topic; what differs between any two runs is left out."""
    return [
        Change(topic=topic, key=key, before=old.get(key), after=new.get(key))
        for (topic, old), new in zip(_topics(before).items(), _topics(after).values(), strict=True)
        for key in [*old, *(key for key in new if key not in old)]
        if old.get(key) != new.get(key)
    ]


def _topics(card: ModelCard) -> dict[str, dict[str, Any]]:
    evaluation, data, code = card.evaluation, card.data, card.code
    return {
        "metrics": {**evaluation.metrics, "decision_threshold": evaluation.decision_threshold},
        "slices": {f"{s.name} {metric}": value for s in evaluation.slices for metric, value in s.metrics.items()},
        "checks": {check.name: check.detail for check in evaluation.checks},
        "data": {
            "source": data.source,
            "spans": ", ".join(data.spans),
            **{f"rows in {split}": rows for split, rows in data.splits.items()},
            "digest": data.digest,
        },
        "schema": {"digest": card.schema_digest},
        "config": dict(_leaves(card.config)),
        "code": {
            "version": code.version,
            "registry": code.registry,
            "image_tag": code.image_tag,
            **dict(_leaves(code.details)),
            **{f"lock {name}": digest for name, digest in code.locks.items()},
            **code.libraries,
        },
        "model": {"digest": card.model_digest, **dict(_leaves(card.model))},
    }


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Flattens nested mappings and lists of mappings to dotted keys; a list of scalars is one value."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{index}]")
    else:
        yield path, value


def to_markdown(card: ModelCard) -> str:
    """Writes a card for people."""
    evaluation, data, code = card.evaluation, card.data, card.code
    metrics = [
        (f"`{name}`", _figure(value), _interval(evaluation.intervals.get(name)))
        for name, value in evaluation.metrics.items()
    ]
    blocks = [
        f"# {card.name} {card.version}",
        card.description,
        _table(
            ("", ""),
            [
                ("Published", f"{card.created:%Y-%m-%d %H:%M} UTC"),
                ("Owner", card.owner or "–"),
                ("Run", card.run_name),
                ("Parent", card.parent or "none"),
                ("Model", ", ".join(f"{key} {value}" for key, value in _leaves(card.model)) or "–"),
                ("Verdict", f"{evaluation.verdict}: {evaluation.reason}"),
                ("Decision threshold", _figure(evaluation.decision_threshold)),
                ("Model digest", f"`{card.model_digest}`"),
                ("Inputs digest", f"`{card.inputs_digest}`" if card.inputs_digest else "–"),
            ],
        ),
        "## Data",
        _table(
            ("", ""),
            [
                ("Source", data.source or "–"),
                ("Spans", ", ".join(data.spans) or "–"),
                *((f"Rows in {split}", f"{rows:,}") for split, rows in data.splits.items()),
                ("Digest", f"`{data.digest}`"),
                ("Schema digest", f"`{card.schema_digest}`"),
            ],
        ),
        "## Metrics",
        _table(("Metric", "Value", "Interval"), metrics),
        "## Checks",
        _table(
            ("Check", "Result", "Detail"),
            [(c.name, "pass" if c.passed else "fail", c.detail) for c in evaluation.checks],
        ),
        "## Code",
        _table(
            ("", ""),
            [
                ("Version", code.version),
                ("Images", f"{code.registry}, tag {code.image_tag}"),
                *((str(key), str(value)) for key, value in _leaves(code.details) if key),
                *((f"Lock of {name}", f"`{digest}`") for name, digest in code.locks.items()),
                *code.libraries.items(),
            ],
        ),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return "None."
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines
    )


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _interval(bounds: tuple[float, float] | None) -> str:
    return "–" if bounds is None else f"{bounds[0]:.4g} to {bounds[1]:.4g}"
