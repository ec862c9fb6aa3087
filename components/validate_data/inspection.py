"""All that is found out about a dataset: statistics, schema, anomalies, distances."""

from collections.abc import Iterable
from dataclasses import dataclass

from tensorflow_metadata.proto.v0 import schema_pb2

from components.artifacts import BATCH
from components.data_statistics.conformity import check_schema, training_environment
from components.data_statistics.findings import Finding, describe
from components.data_statistics.kinds import kind
from components.data_statistics.offences import Mask, Offence, find_offences, mask_for
from components.data_statistics.statistics import StatisticsList
from components.profiles import Profile, make_profile, profiled_columns
from components.settings import Task, Validation
from components.validate_data.anomalies import Anomaly, Example, by_weight
from components.validate_data.checks import check_environments, check_split, check_train
from components.validate_data.comparisons import Distance, compare, excesses
from components.validate_data.rules import Against, Rules
from components.validate_data.splits import Split
from components.validate_data.summaries import Summary, infer_schema, summarize


@dataclass(frozen=True)
class Inspection:
    """The result of `inspect`."""

    summaries: dict[str, Summary]
    schema: schema_pb2.Schema
    inferred: bool
    anomalies: list[Anomaly]
    """The worst first; none that is to be ignored."""
    distances: list[Distance]

    def profile(self) -> Profile:
        """Counts the train split, which is read once more, as what the model will be asked is held against it."""
        train = self.summaries["train"]
        kinds = profiled_columns(self.schema, train.split.columns)
        return make_profile(train.sample, train.split.batches(list(kinds)), kinds)

    @property
    def rows(self) -> dict[str, int]:
        """Rows of each split."""
        return {name: summary.split.rows for name, summary in self.summaries.items()}


def inspect(
    splits: dict[str, Split],
    task: Task,
    validation: Validation,
    rules: Rules,
    curated: schema_pb2.Schema | None,
    production: StatisticsList | None,
) -> Inspection:
    """Reads every split once, and once more the columns that have anomalies."""
    summaries = {name: summarize(split, curated) for name, split in splits.items()}
    schema = curated or infer_schema(summaries["train"], task.label, validation.serving_environment)
    is_batch = BATCH in summaries
    findings = [] if is_batch else list(check_environments(schema, task.label, validation.serving_environment))
    for summary in summaries.values():
        findings += _check(summary, task, schema, validation.serving_environment)
    anomalies = _complete(findings, summaries, schema, rules, validation.max_examples)
    distances: list[Distance] = []
    judged = summaries[BATCH if is_batch else "train"]
    train = _statistics(judged)
    others: dict[Against, StatisticsList | None] = {
        "eval": _statistics(summaries.get("eval")),
        "production": production,
    }
    for against, other in others.items():
        if train is not None and other is not None:
            measured = compare(train, other, against, schema, rules)
            distances += measured
            anomalies += _judged(
                excesses(measured, judged.split.name, train, other, schema, validation.max_examples), rules
            )
    return Inspection(summaries, schema, curated is None, by_weight(anomalies), distances)


def _statistics(summary: Summary | None) -> StatisticsList | None:
    return summary.statistics if summary is not None and summary.split.rows else None


def _check(summary: Summary, task: Task, schema: schema_pb2.Schema, serving_environment: str) -> list[Finding]:
    if not summary.split.rows:
        return [Finding(summary.split.name, "", "EMPTY_SPLIT")]
    environment: str | None = serving_environment if serving_environment in schema.default_environment else None
    if summary.split.name != BATCH:
        environment = training_environment(schema, serving_environment)
    findings = check_schema(summary.statistics, schema, environment, summary.split.name)
    findings += check_split(summary, task, {(one.feature, one.type) for one in findings})
    if summary.split.name == "train":
        findings += check_train(summary, task)
    return findings


def _complete(
    findings: Iterable[Finding],
    summaries: dict[str, Summary],
    schema: schema_pb2.Schema,
    rules: Rules,
    max_examples: int,
) -> list[Anomaly]:
    """Counts the offending rows of what is not ignored."""
    wanted = [one for one in findings if rules.severity(one.feature, one.type) != "ignore"]
    anomalies = []
    for split in dict.fromkeys(one.split for one in wanted):
        here = [one for one in wanted if one.split == split]
        offences = find_offences(summaries[split].split, _masks(here, schema)) if split in summaries else {}
        rows = summaries[split].split.rows if split in summaries else 0
        for one in here:
            anomalies.append(_anomaly(one, offences.get((one.feature, one.type)), rows, max_examples))
    return _judged(anomalies, rules)


def _masks(findings: Iterable[Finding], schema: schema_pb2.Schema) -> dict[tuple[str, str], Mask | None]:
    features = {feature.name: feature for feature in schema.feature}
    masks = {}
    for one in findings:
        try:
            masks[one.feature, one.type] = mask_for(one.type, features.get(one.feature), schema)
        except KeyError:
            continue
    return masks


def _anomaly(finding: Finding, offence: Offence | None, rows: int, max_examples: int) -> Anomaly:
    share = offence.rows / rows if offence and rows else None
    frequent = offence.values.most_common(max_examples) if offence else []
    return Anomaly(
        split=finding.split,
        feature=finding.feature,
        type=finding.type,
        description=describe(finding.type, share, finding.words),
        share=share,
        examples=[Example(value=value, rows=count) for value, count in frequent],
        advice=kind(finding.type).advice,
    )


def _judged(anomalies: Iterable[Anomaly], rules: Rules) -> list[Anomaly]:
    judged = [
        one.model_copy(
            update={
                "severity": rules.severity(one.feature, one.type, one.against),
                "advice": kind(one.type).advice,
            }
        )
        for one in anomalies
    ]
    return [one for one in judged if one.severity != "ignore"]
