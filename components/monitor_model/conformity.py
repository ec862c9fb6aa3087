"""Whether logged rows conform to the schema, in the environment in which there is no label."""

from collections.abc import Collection
from dataclasses import dataclass

from tensorflow_metadata.proto.v0 import schema_pb2

from components.data_statistics.conformity import check_schema
from components.data_statistics.findings import Finding, describe
from components.data_statistics.kinds import kind
from components.data_statistics.offences import MISSING, Rows, find_offences, mask_for
from components.data_statistics.statistics import StatisticsList
from components.monitor_model.distances import share_interval
from components.settings import Validation

_PLACE = "log"
_EXAMPLES = 5


@dataclass(frozen=True)
class Anomaly:
    """One way in which rows break the schema."""

    feature: str
    type: str
    """As TFDV names it."""
    detail: str
    share: float | None
    """Of the rows; None: it is not about values."""
    certain_share: float
    """The lower end of its interval, less what the schema allows."""
    warns_only: bool
    """By validation.severity."""
    examples: list[str]


def logged_schema(schema: schema_pb2.Schema, logged: Collection[str]) -> schema_pb2.Schema:
    """Gives the part of a schema that speaks of logged columns."""
    part = schema_pb2.Schema()
    part.CopyFrom(schema)
    del part.feature[:]
    part.feature.extend(feature for feature in schema.feature if feature.name in logged)
    return part


def find_anomalies(
    statistics: StatisticsList, rows: Rows, count: int, schema: schema_pb2.Schema, validation: Validation
) -> list[Anomaly]:
    """Holds rows against the schema, and counts those that break it.

    Args:
        statistics: of the rows.
        rows: to be read again, for the columns that have anomalies.
        count: how many there are.
        schema: of the logged columns.
        validation: names the environment and the severities.
    """
    serving = validation.serving_environment
    environment = serving if serving in schema.default_environment else None
    findings = check_schema(statistics, schema, environment, _PLACE)
    kept = [(one, severity) for one in findings if (severity := _severity(one, validation)) != "ignore"]
    features = {feature.name: feature for feature in schema.feature}
    masks = {}
    for one, _ in kept:
        try:
            masks[one.feature, one.type] = mask_for(one.type, features.get(one.feature), schema)
        except KeyError:
            continue  # no value by itself is the offence
    offences = find_offences(rows, masks)
    found = []
    for one, severity in kept:
        offence = offences.get((one.feature, one.type))
        share = offence.rows / count if offence and count else None
        low = share_interval(offence.rows, count)[0] if offence else 1.0
        allowed = 1 - features[one.feature].presence.min_fraction if one.type in MISSING and one.feature else 0.0
        found.append(
            Anomaly(
                feature=one.feature,
                type=one.type,
                detail=f"{describe(one.type, share, one.words)} ({kind(one.type).advice})",
                share=share,
                certain_share=low - (allowed if allowed < 1 else 0.0),
                warns_only=severity == "warn",
                examples=[f"{value} ({n:,} rows)" for value, n in offence.values.most_common(_EXAMPLES)]
                if offence
                else [],
            )
        )
    return found


def _severity(finding: Finding, validation: Validation) -> str:
    """Gives the severity as validate_data has it: of feature and type, else of the feature, else of the type."""
    for key in (f"{finding.feature}/{finding.type}", finding.feature, finding.type):
        if key and key in validation.severity:
            return validation.severity[key]
    return kind(finding.type).severity
