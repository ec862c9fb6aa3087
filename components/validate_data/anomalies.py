"""Anomalies as they are judged, written and shown."""

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from components.settings import Severity


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class Example(_Record):
    """One offending value."""

    value: str
    rows: int | None = None
    """That have it; None: counted nowhere."""


class Anomaly(_Record):
    """One thing that is not as it should be."""

    split: str
    """Where; `schema`: in no split."""
    feature: str = ""
    """Empty: the whole split."""
    type: str
    """TFDV's name, or one of our own (kinds.OWN)."""
    severity: Severity = "error"
    description: str = ""
    """Short, with the share: "30.1 % of values outside the domain"."""
    share: float | None = None
    """Of the split's rows; None: does not apply."""
    examples: list[Example] = []
    advice: str = ""
    """The next step."""
    against: str = ""
    """What the split was compared with: `eval` or `production`."""


class Verdict(_Record):
    """The content of anomalies.json."""

    verdict: str
    reason: str
    schema_source: str
    """`curated`, or `inferred` from the train split."""
    rows: dict[str, int]
    anomalies: list[Anomaly]


def by_weight(anomalies: Iterable[Anomaly]) -> list[Anomaly]:
    """Sorts the worst first: errors before warnings, then by the share of rows."""
    return sorted(anomalies, key=lambda one: (one.severity != "error", -1.0 if one.share is None else -one.share))


def _blames_inference(anomaly: Anomaly, inferred: bool) -> bool:
    return inferred and "schema.pbtxt" in anomaly.advice


def reason(anomalies: list[Anomaly], rows: int, inferred: bool) -> str:
    """Says in one line what decides the verdict, and the next step."""
    errors = [one for one in by_weight(anomalies) if one.severity == "error"]
    if not errors:
        notes = [f"{len(anomalies)} warning{'s' * (len(anomalies) != 1)}"] * bool(anomalies)
        notes += ["schema inferred from the same data: review it"] * inferred
        return f"0 anomalies in {rows:,} rows" + (f" ({'; '.join(notes)})" if notes else "")
    worst = errors[0]
    places = list(dict.fromkeys(one.split for one in errors))
    where = f"split{'s' * (len(places) > 1)} {', '.join(map(repr, places))}"
    subject = f"{worst.feature}: " if worst.feature else ""
    example = f", e.g. {worst.examples[0].value!r}" if worst.examples else ""
    review = "; it was inferred: review it and name it under `schema`" if _blames_inference(worst, inferred) else ""
    return (
        f"{len(errors)} anomal{'ies' if len(errors) > 1 else 'y'} in {where} (allowed: 0): "
        f"{subject}{worst.description}{example} … {worst.advice}{review}"
    )
