"""What `pipeline.yaml` may say, section by section.

A section is one argument of the compiled pipeline, so that a change to `training` leaves the cached
results of `ingest_data` alone. Arguments travel as JSON, where 3.0 may arrive as 3 and None is left out:
stages read them back with `Section.model_validate(argument)`.
"""

from collections.abc import Iterator, Mapping
from datetime import date, datetime
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator, model_validator

Name = Annotated[str, Field(min_length=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Severity = Literal["error", "warn", "ignore"]


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values never change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


# ---------------------------------------------------------------------------------------------- data


class CsvOptions(Section):
    """How to read CSV."""

    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    """One character; write "\\t" for a tab."""
    encoding: str = "utf-8"
    """Any encoding that Python knows, e.g. latin-1; a byte order mark is skipped."""
    quote: Annotated[str, Field(min_length=1, max_length=1)] = '"'
    """One character."""
    null_values: list[str] = ["", "NA", "NaN", "null"]
    """Cells that mean "missing" (unquoted)."""


class HashSplit(Section):
    """Splits rows by a hash of their key: rows with one key stay together, on every machine."""

    by: Literal["hash"]
    key: Annotated[list[Name], Field(min_length=1)]
    """Columns whose values decide, e.g. [customer_id]."""
    eval_fraction: Fraction = 0.2
    """Share of keys that go to the eval split."""
    salt: str = ""
    """Change it to draw another split."""


class TimeSplit(Section):
    """Splits rows at a point in time, as production will see them."""

    by: Literal["time"]
    column: Name
    """A date or time column (or one with a time_domain in the schema)."""
    eval_from: datetime | None = None
    """Rows at or after this time go to the eval split, e.g. 2013-10-01. Without a zone: UTC."""
    eval_last: Annotated[str | None, Field(pattern=r"^[1-9][0-9]{0,4} (hour|day|month|year)s?$")] = None
    """Instead: the last of the window, e.g. "1 month", so that a window that moves is evaluated on its newest rows. The
    source's names must tell the time ({YYYY} …)."""

    @model_validator(mode="after")
    def _one_cut(self) -> Self:
        if (self.eval_from is None) == (self.eval_last is None):
            raise ValueError("give either eval_from (a time) or eval_last (e.g. 1 month)")
        return self


class ColumnSplit(Section):
    """Splits rows by the value of a given column."""

    by: Literal["column"]
    column: Name
    train: Annotated[list[str], Field(min_length=1)] = ["train"]
    """Values of the train split."""
    eval: Annotated[list[str], Field(min_length=1)] = ["eval"]
    """Values of the eval split; a row with any other value is an error."""


Split = Annotated[HashSplit | TimeSplit | ColumnSplit, Field(discriminator="by")]

_SPAN_RANGE = r"[0-9][0-9T-]*(\.\.[0-9][0-9T-]*)?"
_OFFSETS = r"[0-9]{1,9}:[0-9]{1,18}\.\.[0-9]{1,18}"
WINDOW_PATTERN = (
    rf"^(all|(the )?last [1-9][0-9]* (span|hour|day|month|year)s?|{_SPAN_RANGE}(,{_SPAN_RANGE})*"
    rf"|offsets {_OFFSETS}(,{_OFFSETS})*)$"
)


class EventFormat(Section):
    """How the value of a Kafka message is spelled."""

    type: Literal["json", "avro"] = "json"
    schema_file: str | None = None
    """avro: file with the writer's schema (.avsc), from the project's folder; a value is then Avro alone."""
    schema_registry: str = ""
    """avro: URL of a schema registry; a value then begins with the id of its schema, in Confluent's wire format."""

    @model_validator(mode="after")
    def _one_schema(self) -> Self:
        given = bool(self.schema_file) + bool(self.schema_registry)
        if self.type == "avro" and given != 1:
            raise ValueError("type is avro, so give either schema_file or schema_registry")
        if self.type == "json" and given:
            raise ValueError("type is json, which needs no schema: take schema_file and schema_registry out")
        return self


class KafkaOptions(Section):
    """How to read a Kafka topic."""

    format: EventFormat = EventFormat()
    timestamp_column: str = ""
    """Column for the time at which a message was written (seconds since 1970); empty: none."""
    key_column: str = ""
    """Column for the message's key, as text; empty: none."""
    avro_schema: str = ""
    """Content of format.schema_file; filled in when a run is submitted."""


class Data(Section):
    """Where the rows come from."""

    source: Name
    """Local path, gs:// or s3:// URI. It may hold wildcards, {SPAN}, or {YYYY} {MM} {DD} {HH}. Or a Kafka topic:
    kafka://SERVER:9092/TOPIC."""
    window: Annotated[str, Field(pattern=WINDOW_PATTERN)] = "all"
    """Which spans: "all", "last 9 months", "last 3 spans", or "2013-01..2013-09" (both ends included; several with
    commas between them). Of a topic: when messages were written, or "offsets 0:100..200,1:50..80" (by partition, the
    end excluded)."""
    format: Literal["auto", "csv", "parquet"] = "auto"
    """auto: by the file name, .gz and .zst included."""
    csv: CsvOptions = CsvOptions()
    kafka: KafkaOptions = KafkaOptions()
    split: Split
    key: list[Name] = []
    """Columns that identify a row: kept beside its prediction, checked for duplicates, never a feature."""

    @field_validator("window", mode="before")
    @classmethod
    def _as_text(cls, window: Any) -> Any:
        # YAML takes 2013 for a number and 2013-12-01 for a date.
        if isinstance(window, date):
            return window.isoformat()
        return str(window) if isinstance(window, int) else window


# ------------------------------------------------------------------------------------- task, validation


TaskType = Literal["binary", "multiclass", "regression", "anomaly_detection", "clustering"]
UNSUPERVISED = frozenset(("anomaly_detection", "clustering"))
"""Types of task whose models learn from no label."""


class Task(Section):
    """What is predicted."""

    type: TaskType
    label: Name | None = None
    """The column to predict. anomaly_detection, clustering: may be left out; it then only tells, in evaluation and in
    model selection, how good a model is, and rows may lack it."""
    positive: str | int | bool | None = None
    """binary: the label's value that counts as positive; anomaly_detection: that of an anomaly. Default: true or 1."""

    @model_validator(mode="after")
    def _label_where_needed(self) -> Self:
        if self.label is None and not self.is_unsupervised:
            raise ValueError(
                f"{self.described} learns from a label: name its column as label, or set type to "
                f"{' or '.join(sorted(UNSUPERVISED))}, which need none"
            )
        if self.positive is not None and self.type == "clustering":
            raise ValueError("a clustering task has no positive value; take positive out")
        return self

    @property
    def is_unsupervised(self) -> bool:
        """Whether models learn from no label."""
        return self.type in UNSUPERVISED

    @property
    def described(self) -> str:
        """For a message, e.g. a binary task."""
        return f"{'an' if self.type.startswith('a') else 'a'} {self.type} task"

    @property
    def labels(self) -> list[str]:
        """The label's column, if there is one."""
        return [] if self.label is None else [self.label]


class Comparison(Section):
    """A limit on the distance between two distributions of one feature."""

    l_infinity: Annotated[float, Field(ge=0, le=1)] | None = None
    """Largest difference of one value's share (categorical features)."""
    jensen_shannon: Annotated[float, Field(ge=0, le=1)] | None = None
    """Jensen-Shannon divergence (numeric and categorical features)."""


class Comparisons(Section):
    """Limits on the distance between two distributions: a default, and exceptions by feature."""

    default: Comparison = Comparison()
    features: dict[Name, Comparison] = {}


class Validation(Section):
    """What counts as an anomaly, and how much it matters."""

    severity: dict[str, Severity] = {}
    """By anomaly type as TFDV names it (e.g. ENUM_TYPE_UNEXPECTED_STRING_VALUES), by feature, or by
    feature/type; the most exact wins. Everything else is an error, except drift and skew: warn."""
    skew: Comparisons = Comparisons()
    """train against eval."""
    drift: Comparisons = Comparisons()
    """train against the training data of the model in production."""
    serving_environment: Name = "SERVING"
    """The schema environment in which the label is absent."""
    max_examples: PositiveInt = 5
    """Offending values that an anomaly shows."""


# ------------------------------------------------------------------------------------------- features


class NumericFeatures(Section):
    """Numeric columns that are treated alike."""

    columns: Annotated[list[Name], Field(min_length=1)]
    scale: Literal["z_score", "min_max", "quantile_buckets", "none"] = "z_score"
    log: bool = False
    """log(1 + x) first; a negative value counts as 0."""
    buckets: Annotated[int, Field(ge=2, le=10_000)] = 10
    """quantile_buckets: how many; a bucket is then a category."""
    missing: Literal["keep", "mean", "zero", "error"] = "keep"
    """keep: trees learn where missing values belong, networks take the training mean. mean, zero: all models take that.
    error: refuse the row."""
    indicator: bool = False
    """Adds a 0/1 feature that tells where the value was missing."""


class CategoricalFeatures(Section):
    """Categorical columns (strings or integers) that are treated alike."""

    columns: Annotated[list[Name], Field(min_length=1)]
    min_frequency: PositiveInt = 1
    """Rarer values are out of vocabulary."""
    top_k: PositiveInt | None = None
    """Keep only the most frequent values."""
    oov_buckets: PositiveInt = 1
    """Buckets that share the values outside the vocabulary."""
    hash_buckets: Annotated[int, Field(ge=2)] | None = None
    """Hash into this many buckets and keep no vocabulary."""
    missing: Literal["category", "error"] = "category"
    """A missing value is a category of its own, or the row is refused."""

    @model_validator(mode="after")
    def _one_encoding(self) -> Self:
        if self.hash_buckets and (self.top_k or self.min_frequency > 1 or self.oov_buckets > 1):
            raise ValueError("hash_buckets keeps no vocabulary: leave out top_k, min_frequency and oov_buckets")
        return self


DatePart = Literal["year", "month", "day", "day_of_year", "weekday", "hour", "minute"]


class DatetimeFeatures(Section):
    """Date and time columns (UTC) that are treated alike."""

    columns: Annotated[list[Name], Field(min_length=1)]
    parts: list[DatePart] = ["month", "weekday", "hour"]
    """Each becomes a category (year: a z-scored number)."""
    cycles: list[Literal["month", "day_of_year", "weekday", "hour", "minute"]] = []
    """Each becomes the sine and cosine of its phase."""


class Cross(Section):
    """Columns whose combination is a category, hashed."""

    columns: Annotated[list[Name], Field(min_length=2)]
    hash_buckets: Annotated[int, Field(ge=2)] = 1000


class Features(Section):
    """How raw columns become model inputs. Empty: chosen by the types in the schema."""

    numeric: list[NumericFeatures] = []
    categorical: list[CategoricalFeatures] = []
    datetime: list[DatetimeFeatures] = []
    crosses: list[Cross] = []

    @property
    def columns(self) -> list[str]:
        """Names of all raw columns that a feature uses, each once, in the order of the file."""
        groups: list[NumericFeatures | CategoricalFeatures | DatetimeFeatures | Cross]
        groups = [*self.numeric, *self.categorical, *self.datetime, *self.crosses]
        return list(dict.fromkeys(column for group in groups for column in group.columns))

    @model_validator(mode="after")
    def _each_column_once(self) -> Self:
        groups: list[NumericFeatures | CategoricalFeatures | DatetimeFeatures]
        groups = [*self.numeric, *self.categorical, *self.datetime]
        columns = [column for group in groups for column in group.columns]
        for column in columns:
            if columns.count(column) > 1:
                raise ValueError(f"column '{column}' is named {columns.count(column)} times; name it in one group")
        return self


# ---------------------------------------------------------------------------------- model and training


class LinearModel(Section):
    """A linear model, by scikit-learn: one weight a number, one a category, fitted until the loss falls no more."""

    kind: Literal["linear"]
    l2: Annotated[float, Field(ge=0)] | None = None
    """Penalty on the squared weights, of numbers in standard deviations, beside the mean loss. Default: scikit-learn's,
    1 / (2 · rows), for a regression 1 / rows."""


class MlpModel(Section):
    """A multilayer perceptron over embedded features."""

    kind: Literal["mlp"] = "mlp"
    hidden_units: Annotated[list[PositiveInt], Field(min_length=1)] = [128, 64]
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    embedding_dim: PositiveInt | None = None
    """Of a categorical feature. Default: min(50, 1.6 · categories ** 0.56)."""
    numeric_embedding: Literal["none", "periodic", "piecewise_linear"] = "periodic"
    """Of a number: as it is, or embedded (Gorishniy et al., On Embeddings for Numerical Features in
    Tabular Deep Learning, NeurIPS 2022)."""
    numeric_embedding_dim: PositiveInt = 8


class WideAndDeepModel(MlpModel):
    """A linear model and a multilayer perceptron, added up and learned together.

    Source: Cheng et al., Wide & Deep Learning for Recommender Systems, DLRS 2016.
    """

    kind: Literal["wide_and_deep"]  # type: ignore[assignment]
    l2: Annotated[float, Field(ge=0)] = 0.0
    """Penalty on the linear part."""


class BoostedTreesModel(Section):
    """Gradient-boosted trees (Friedman, Greedy Function Approximation, 2001), by LightGBM."""

    kind: Literal["boosted_trees"]
    trees: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """At most, for each class of a multiclass label. Default: 500 where 1,000 rows or more are held out for early
    stopping, which keeps fewer; else 10 / learning_rate: so few rows cannot tell, and are learned from in the end."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.05
    leaves: Annotated[int, Field(ge=2, le=1024)] = 31
    """Of a tree, at most."""
    min_leaf_rows: PositiveInt = 20
    max_depth: PositiveInt | None = None
    l2: Annotated[float, Field(ge=0)] = 1.0
    """Penalty on the leaves' values."""
    row_fraction: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Share of the rows that a tree learns from, drawn anew for each."""
    feature_fraction: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the features that each split chooses from."""


class RandomForestModel(Section):
    """A random forest (Breiman, Random Forests, 2001), by LightGBM: the mean of independent trees."""

    kind: Literal["random_forest"]
    trees: Annotated[int, Field(ge=1, le=10_000)] = 100
    """For each class of a multiclass label."""
    leaves: Annotated[int, Field(ge=2, le=1024)] = 256
    """Of a tree, at most."""
    min_leaf_rows: PositiveInt = 2
    max_depth: PositiveInt | None = None
    row_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.632
    """Share of the rows that a tree learns from."""
    feature_fraction: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of the features that each split chooses from."""


class IsolationForestModel(Section):
    """Random trees that set rows apart; anomalies need few splits (Liu, Ting, Zhou, Isolation Forest, ICDM 2008).

    By scikit-learn. A category counts by how rare it is.
    """

    kind: Literal["isolation_forest"]
    trees: Annotated[int, Field(ge=1, le=1_000)] = 100
    sample_rows: Annotated[int, Field(ge=2, le=4_096)] = 256
    """Of a tree, drawn anew for each; more hide anomalies behind each other."""
    feature_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the features that a tree sees."""


class AutoencoderModel(Section):
    """A network that squeezes a row through few units and restores it; what it restores badly is an anomaly.

    Numbers are standardized, categories restored as probabilities; the error of each feature counts relative to its
    mean on rows that were learned from.
    """

    kind: Literal["autoencoder"]
    hidden_units: list[PositiveInt] = [64, 32]
    """From the features to the code; back again in the opposite order."""
    code_units: PositiveInt | None = None
    """Of the narrowest layer. Default: a third of the features, 2 at least."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    noise: Annotated[float, Field(ge=0)] = 0.1
    """Standard deviation of what is added to the standardized numbers while learning (Vincent et al., Extracting and
    Composing Robust Features with Denoising Autoencoders, ICML 2008)."""
    embedding_dim: PositiveInt | None = None
    """Of a categorical feature. Default: min(50, 1.6 · categories ** 0.56)."""


MOST_CLUSTERS = 1_000


class KMeansModel(Section):
    """Rows belong to the nearest of some centres (Lloyd, Least Squares Quantization in PCM, 1982), by scikit-learn.

    Numbers are standardized, categories one-hot. Clusters are numbered by their size, the largest is 0.
    """

    kind: Literal["k_means"]
    clusters: Annotated[int, Field(ge=2, le=MOST_CLUSTERS)] | None = None
    """Default: tune_model tries 2 to max_clusters."""
    max_clusters: Annotated[int, Field(ge=2, le=50)] = 10
    """Tried at most, where clusters is not given."""
    starts: PositiveInt = 10
    """How often centres are drawn (k-means++); the best end is kept."""
    batch_rows: PositiveInt | None = None
    """Learns from so many rows at a time (Sculley, Web-Scale K-Means Clustering, WWW 2010). Default: from all, up to
    100,000 rows; else 4,096."""
    category_weight: Annotated[float, Field(ge=0)] = 1.0
    """Of the categories' columns, against those of standardized numbers."""


def _as_integers(value: Any) -> Any:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, float) and one.is_integer() and abs(one) < 2**53 for one in values):
        return value
    whole = [int(one) for one in values]
    return whole if isinstance(value, list) else whole[0]


class CustomModel(Section):
    """The model that `build_model` of the user module returns."""

    kind: Literal["custom"]
    options: dict[str, str | int | float | bool | list[int] | list[float] | list[str]] = {}
    """Handed to `build_model`; a whole number, or a list of such, as integers."""

    @field_validator("options", mode="before")
    @classmethod
    def _whole_numbers(cls, options: Any) -> Any:
        # Arguments travel as JSON, which does not tell 16 from 16.0; what wants a float takes an integer.
        if not isinstance(options, dict):
            return options
        return {name: _as_integers(value) for name, value in options.items()}


Model = Annotated[
    LinearModel
    | MlpModel
    | WideAndDeepModel
    | BoostedTreesModel
    | RandomForestModel
    | CustomModel
    | IsolationForestModel
    | AutoencoderModel
    | KMeansModel,
    Field(discriminator="kind"),
]
UNSUPERVISED_KINDS: Mapping[str, tuple[str, ...]] = {
    "anomaly_detection": ("isolation_forest", "autoencoder"),
    "clustering": ("k_means",),
}
"""Kinds of models that learn from no label, by type of task; all others are for any task with one."""


def wrong_kind(key: str, model: Model, task: Task) -> str | None:
    """Says what to do about a model, named by a key, that is not for a task; None: it is for it."""
    of_type = next((name for name, kinds in UNSUPERVISED_KINDS.items() if model.kind in kinds), None)
    if of_type == (task.type if task.is_unsupervised else None):
        return None
    known = [str(get_args(one.model_fields["kind"].annotation)[0]) for one in get_args(get_args(Model)[0])]
    unsupervised = [kind for kinds in UNSUPERVISED_KINDS.values() for kind in kinds]
    possible = UNSUPERVISED_KINDS.get(task.type) or [kind for kind in known if kind not in unsupervised]
    return (
        f"{key}: a task of type {task.type} has no '{model.kind}' (that is for "
        f"{of_type or 'tasks that learn from a label'}); use {' or '.join(possible)}, or change task.type"
    )


class EarlyStopping(Section):
    """When training stops before its last epoch; the best weights are restored."""

    patience: PositiveInt = 3
    """Epochs without a better validation loss."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class Decision(Section):
    """binary: from which probability on a row counts as positive. Unless it is given, rows held out decide.

    anomaly_detection: from which score on a row counts as an anomaly; all but threshold and contamination need labels.
    """

    by: Literal["threshold", "contamination", "max_f1", "cost", "precision", "recall"] | None = None
    """threshold: as given. contamination: so many rows of the train split are anomalies. max_f1: the highest F1. cost:
    the lowest. precision, recall: the target is reached, and of the other as much as there is. Default: threshold;
    anomaly_detection: contamination."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    contamination: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """anomaly_detection: share of the train split's rows that count as anomalies."""
    false_positive_cost: Annotated[float, Field(ge=0)] = 1.0
    """by cost: of a row that counts as positive and is not."""
    false_negative_cost: Annotated[float, Field(ge=0)] = 1.0
    """by cost: of a positive row that does not count as one."""
    target: Annotated[float, Field(gt=0, le=1)] | None = None
    """by precision or recall: what to reach."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.by in ("precision", "recall") and self.target is None:
            raise ValueError(f"by is {self.by}, so give target, e.g. 0.9")
        return self

    @property
    def looks_at_labels(self) -> bool:
        """Whether the labels of some rows decide."""
        return self.by not in (None, "threshold", "contamination")


class Training(Section):
    """How the model is fitted."""

    epochs: PositiveInt = 20
    batch_size: PositiveInt | None = None
    """Default: 1024, or so many that an epoch has 32 steps, but not fewer than 32."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    learning_rate_decay: Literal["none", "cosine"] = "none"
    """cosine: the rate falls to 0 along half a cosine over all epochs (Loshchilov, Hutter: SGDR, ICLR 2017). Models
    that differ in the seed only are then more alike."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    early_stopping: EarlyStopping | None = EarlyStopping()
    validation_fraction: Fraction = 0.1
    """Share of the train split that is held out, to stop early, to calibrate and to choose the threshold; the eval
    split is never used for that."""
    validation_rows: Literal["random", "last"] = "random"
    """Which rows are held out: drawn by the seed, or the last in the order of the spans."""
    calibration: Literal["none", "sigmoid", "isotonic"] = "none"
    """Makes probabilities agree with the shares seen on the rows held out. sigmoid: one slope (for more than two
    classes: one temperature); isotonic: any rising curve, for some thousand rows."""
    decision: Decision = Decision()
    class_weight: Literal["none", "balanced"] = "none"
    seed: Annotated[int, Field(ge=0)] = 17

    @property
    def holds_out(self) -> bool:
        """Whether rows are held out."""
        return bool(self.early_stopping) or self.calibration != "none" or self.decision.looks_at_labels


# --------------------------------------------------------------------------------------------- tuning


class Range(Section):
    """From where to where a hyperparameter is drawn; one that is a whole number is drawn as such."""

    low: int | float
    high: int | float
    log: bool = False
    """Drawn evenly on a logarithmic scale."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low is {self.low}, high {self.high}; low must be the smaller")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low}; a logarithmic range starts above 0")
        return self


def with_hyperparameters(model: Model, values: Mapping[str, Any]) -> Model:
    """Gives a model with other hyperparameters; those of a custom one are its options.

    Raises:
        ValidationError: it has no such hyperparameter, or not of this value.
    """
    given = {"options": {**model.options, **values}} if isinstance(model, CustomModel) else values
    return type(model).model_validate({**model.model_dump(), **given})


def default_candidates(task: Task) -> list[Model]:
    """Lists the models that compete where none is named."""
    if task.type == "clustering":
        return [KMeansModel(kind="k_means")]
    if task.type == "anomaly_detection":
        forest = IsolationForestModel(kind="isolation_forest")
        # Without labels nothing tells which of two detectors is the better one.
        return [forest, AutoencoderModel(kind="autoencoder")] if task.label else [forest]
    return [LinearModel(kind="linear"), MlpModel(), BoostedTreesModel(kind="boosted_trees")]


def each_count(candidates: list[Model]) -> list[Model]:
    """Puts one candidate a number of clusters where a candidate leaves the number open."""
    return [
        one
        for candidate in candidates
        for one in (
            [candidate.model_copy(update={"clusters": count}) for count in range(2, candidate.max_clusters + 1)]
            if isinstance(candidate, KMeansModel) and candidate.clusters is None
            else [candidate]
        )
    ]


SelectionMetric = Literal["log_loss", "brier", "auc", "accuracy", "rmse", "mae", "silhouette"]
SELECTION_METRICS: Mapping[str, tuple[SelectionMetric, ...]] = {
    "binary": ("log_loss", "brier", "auc", "accuracy"),
    "multiclass": ("log_loss", "brier", "auc", "accuracy"),
    "regression": ("rmse", "mae"),
    "anomaly_detection": ("auc",),
    "clustering": ("silhouette",),
}
"""By type of task; the first is the default."""


class Tuning(Section):
    """How the model is chosen: candidates, compared on rows of the train split that they did not learn from."""

    candidates: list[Model] = []
    """Kinds of models, with the hyperparameters to start from. Default: section model alone; without one linear, mlp
    and boosted_trees; anomaly_detection: isolation_forest and, with a label, autoencoder; clustering: k_means."""
    trials: Annotated[int, Field(ge=0)] = 0
    """Models with other hyperparameters that are tried besides the candidates as they stand."""
    seconds: Annotated[float, Field(gt=0)] | None = None
    """After which no further trial starts; the candidates as they stand are always tried."""
    search: dict[str, dict[Name, Range | list[Any]]] = {}
    """By kind of model, hyperparameters and where they are drawn from; default: what the kind proposes."""
    metric: SelectionMetric | None = None
    """Default: log_loss; regression: rmse; anomaly_detection: auc; clustering: silhouette (Rousseeuw, Silhouettes,
    1987), on 3,000 rows at most."""
    folds: Annotated[int, Field(ge=1, le=20)] | None = None
    """Cross-validation with so many folds; 1: one part of the train split is held out. Default: 1, or 5 where fewer
    than 1,000 rows with labels to learn are drawn from: of so few, a part says little."""
    validation_fraction: Fraction = 0.2
    """With one fold: share of the train split that candidates are compared on."""
    validation_rows: Literal["random", "last"] = "random"
    """With one fold: which, drawn by the seed, or the last in the order of the spans."""
    max_rows: Annotated[int, Field(ge=10)] | None = 100_000
    """So many rows of the train split take part at most, drawn by the seed, or the last; the chosen model then learns
    from all."""
    rule: Literal["one_standard_error", "best"] = "one_standard_error"
    """one_standard_error: of those not worse than the best by more than the standard error of the difference, the one
    that is cheapest to serve (Breiman et al., Classification and Regression Trees, 1984)."""
    prune: bool = True
    """Stop trials early that lag behind the others."""
    sampler: Literal["tpe", "random"] = "tpe"
    """How hyperparameters are drawn. tpe: in the light of the trials before (Bergstra et al., NeurIPS 2011). random:
    independently (Bergstra, Bengio, JMLR 2012), so that trials can run in pods of their own (pipeline tuning)."""
    parallel: PositiveInt = 1
    """Trials at one time, each in a process of its own; in pipeline tuning, in a pod of its own."""
    seed: Annotated[int, Field(ge=0)] = 17

    @model_validator(mode="after")
    def _known_kinds(self) -> Self:
        kinds = {candidate.kind: candidate for candidate in reversed(self.candidates)}
        for kind, choices in self.search.items():
            if kind not in kinds:
                raise ValueError(
                    f"search names '{kind}', which is no candidate ({', '.join(kinds) or 'none is named'})"
                )
            for name, choice in choices.items():
                self._check_choice(kinds[kind], name, choice)
        return self

    @staticmethod
    def _check_choice(candidate: Model, name: str, choice: Range | list[Any]) -> None:
        where = f"search.{candidate.kind}.{name}"
        if choice == []:
            raise ValueError(f"{where} is empty; give values, or a range with low and high")
        known = type(candidate).model_fields
        if candidate.kind != "custom" and (name not in known or name == "kind"):
            raise ValueError(f"{where}: a model of this kind has {', '.join(n for n in known if n != 'kind')}")
        for value in (choice.low, choice.high) if isinstance(choice, Range) else choice:
            try:
                with_hyperparameters(candidate, {name: value})
            except ValidationError as error:
                fault = error.errors(include_url=False)[0]["msg"]
                raise ValueError(f"{where}: {value}: {fault[0].lower()}{fault[1:]}") from error


# ------------------------------------------------------------------------------------------ evaluation

ClassMetric = Literal[
    "auc",
    "pr_auc",
    "log_loss",
    "brier",
    "calibration_error",
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
]
NumberMetric = Literal["rmse", "mae", "r2", "median_absolute_error", "quantile_loss"]
AnomalyMetric = Literal["auc", "pr_auc", "precision", "recall", "f1"]
ScoreMetric = Literal["flagged", "score_shift"]
"""Of an anomaly_detection task, without labels, too."""
LabelledClusterMetric = Literal["adjusted_rand", "v_measure", "homogeneity", "completeness"]
ClusterMetric = Literal["silhouette", "davies_bouldin", "calinski_harabasz", "largest_cluster", "smallest_cluster"]
MetricName = Literal[ClassMetric, NumberMetric, ScoreMetric, LabelledClusterMetric, ClusterMetric]
_METRICS: Mapping[str, tuple[str, ...]] = {
    "binary": get_args(ClassMetric),
    "multiclass": get_args(ClassMetric),
    "regression": get_args(NumberMetric),
    "anomaly_detection": get_args(ScoreMetric),
    "clustering": get_args(ClusterMetric),
}
_WITH_LABEL: Mapping[str, tuple[str, ...]] = {
    "anomaly_detection": get_args(AnomalyMetric),
    "clustering": get_args(LabelledClusterMetric),
}


def metrics_of(task: Task) -> tuple[str, ...]:
    """Lists the metrics of a task: those by labels, where there are some, come first."""
    return (*(_WITH_LABEL.get(task.type, ()) if task.label else ()), *_METRICS[task.type])


NEUTRAL_METRICS = frozenset(("flagged", "largest_cluster", "smallest_cluster"))
"""Of which neither more nor less is better."""


def gain_metric(task: Task) -> str:
    """Gives the metric in which the trivial baseline is beaten, unless the settings name another."""
    if task.type == "anomaly_detection":
        return "auc" if task.label else "score_shift"
    if task.type == "clustering":
        return "adjusted_rand" if task.label else "silhouette"
    return "rmse" if task.type == "regression" else "log_loss"


def lead_metric(task: Task) -> str:
    """Gives the metric in which production is compared, unless the settings name another; the first in a reason."""
    return "auc" if task.type == "binary" else gain_metric(task)


class Threshold(Section):
    """A bound on a metric."""

    metric: MetricName
    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _some_bound(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        return self


class SliceThreshold(Threshold):
    """A bound on a metric in every slice that has enough rows."""

    slices: list[list[Name]] = []
    """Only in these; default: all slices."""


class Gain(Section):
    """How much better than the trivial baseline (the training prior, or mean) the model must be.

    anomaly_detection: than the same score for every row; clustering: than one cluster.
    """

    metric: MetricName | None = None
    """Default: log_loss; regression: rmse; anomaly_detection: auc, without labels score_shift; clustering:
    adjusted_rand, without labels silhouette."""
    min_gain: Annotated[float, Field(ge=0)] = 0.0
    """In the metric's unit; 0: better, by however little."""


class Regression(Section):
    """How much worse than the model in production, on the same rows, the model may be."""

    metric: MetricName | None = None
    """Default: auc for binary, log_loss for multiclass, else as for the baseline; anomaly_detection without labels:
    none, but both must order rows alike, see min_rank_agreement."""
    tolerance: Annotated[float, Field(ge=0)] = 0.005
    """In the metric's unit."""
    min_rank_agreement: Annotated[float, Field(ge=-1, le=1)] = 0.5
    """anomaly_detection without labels: smallest rank correlation (Spearman) of both models' scores."""


class Bootstrap(Section):
    """Confidence intervals by resampling rows."""

    resamples: Annotated[int, Field(ge=0, le=10_000)] = 100
    """0: no intervals."""
    confidence: Fraction = 0.95
    seed: Annotated[int, Field(ge=0)] = 17


class Evaluation(Section):
    """What a model must reach to pass the gate."""

    decision_threshold: Annotated[float, Field(gt=0, lt=1)] | Literal["model", "max_f1"] = "model"
    """binary, anomaly_detection: the score from which a row counts as positive. model: what training.decision chose;
    max_f1: chosen on the eval split, by its labels."""
    thresholds: list[Threshold] = []
    slices: list[Annotated[list[Name], Field(min_length=1)]] = []
    """Columns, or crosses of columns, by whose values the metrics are also computed."""
    min_slice_rows: PositiveInt = 100
    """Slices with fewer rows are listed but bound by no threshold."""
    slice_thresholds: list[SliceThreshold] = []
    max_rejected: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of the eval rows that the model may refuse to predict, e.g. because a required value is missing."""
    baseline: Gain = Gain()
    production: Regression = Regression()
    bootstrap: Bootstrap = Bootstrap()
    quantile: Fraction = 0.5
    """quantile_loss: of which quantile."""
    max_flagged_shift: Annotated[float, Field(ge=0, le=1)] = 0.05
    """anomaly_detection without labels: how far the share of eval rows that count as anomalies may lie from that of the
    rows learned from; chance is allowed for."""


def evaluation_faults(task: Task, evaluation: Evaluation) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yields the conditions that name no metric of the task, or a slice that is not computed: where, and what to do."""
    named: dict[tuple[str | int, ...], MetricName | None] = {
        **{("thresholds", index): one.metric for index, one in enumerate(evaluation.thresholds)},
        **{("slice_thresholds", index): one.metric for index, one in enumerate(evaluation.slice_thresholds)},
        ("baseline",): evaluation.baseline.metric,
        ("production",): evaluation.production.metric,
    }
    for (key, *index), metric in named.items():
        bounds = str(key).endswith("thresholds")
        possible = [name for name in metrics_of(task) if bounds or name not in NEUTRAL_METRICS]
        if metric is not None and metric not in possible:
            place = f"{key}[{index[0]}]" if index else key
            unlabelled = "" if task.label else " without a label"
            gain = " to be better in" if metric in metrics_of(task) else ""
            yield (
                ("evaluation", str(key), *index, "metric"),
                f"evaluation.{place}.metric: {task.described}{unlabelled} has no '{metric}'{gain}; use one of "
                f"{', '.join(possible)}",
            )
    if evaluation.decision_threshold == "max_f1" and task.is_unsupervised and not task.label:
        yield (
            ("evaluation", "decision_threshold"),
            "evaluation.decision_threshold: max_f1 needs labels; name task.label, or set it to model",
        )
    computed = [set(names) for names in evaluation.slices]
    for number, bound in enumerate(evaluation.slice_thresholds):
        for position, names in enumerate(bound.slices):
            if set(names) not in computed:
                known = ", ".join(f"[{', '.join(one)}]" for one in evaluation.slices) or "none"
                yield (
                    ("evaluation", "slice_thresholds", number, "slices", position),
                    f"evaluation.slice_thresholds[{number}].slices: [{', '.join(names)}] is not in evaluation.slices "
                    f"({known}); add it there",
                )


# ---------------------------------------------------------------------------------------- explanation


class Explanation(Section):
    """How predictions are explained. Nothing here decides whether a model passes."""

    method: Literal["auto", "shap", "lime"] = "auto"
    """auto: the trees' own SHAP values, for other models shap. shap: Shapley values, by asking the model about mixes of
    rows. lime: a linear model around each row; what it gives does not add up to the prediction."""
    rows: PositiveInt = 500
    """Drawn from the evaluated ones; each is explained."""
    background_rows: PositiveInt = 100
    """Drawn from the train split; contributions are measured against them."""
    top_features: PositiveInt = 20
    """Shown in the report; the table has all."""
    max_seconds: Annotated[float, Field(gt=0)] = 60.0
    """shap: after which rows are compared with no further row of the background."""
    min_slice_rows: Annotated[int, Field(ge=10)] = 100
    """Of a slice in which the model is weak, at least."""
    seed: Annotated[int, Field(ge=0)] = 17


# --------------------------------------------------------------------------------- serving, deployment


class Golden(Section):
    """Rows whose answers must be the ones that were evaluated."""

    rows: PositiveInt = 50
    """Taken at equal distances from the predicted rows."""
    tolerance: Annotated[float, Field(ge=0)] = 1e-4
    """Largest difference of a number; relative to it when it is above 1."""
    tolerances: dict[Name, Annotated[float, Field(ge=0)]] = {}
    """Others, by output column."""


class Serving(Section):
    """What the real model server must do with a model before it is published."""

    golden: Golden = Golden()
    requests: PositiveInt = 200
    """Requests of one row, one after the other, whose latency is measured."""
    start_seconds: Annotated[float, Field(gt=0)] = 120.0
    """How long the server may take until it is ready."""
    max_p50_ms: Annotated[float, Field(gt=0)] | None = None
    """Limit on the median latency. Set it only where runs have a machine for themselves; always measured."""
    max_p99_ms: Annotated[float, Field(gt=0)] | None = None
    """Limit on the 99th percentile."""
    max_memory_mib: Annotated[float, Field(gt=0)] | None = None
    """Limit on the server's resident set, after all requests."""


Percent = Annotated[int, Field(ge=1, le=99)]


class Resources(Section):
    """What a model server's container asks for and may have, in Kubernetes' notation."""

    cpu: Name = "250m"
    memory: Name = "1Gi"
    cpu_limit: str = ""
    """Empty: none; a limit makes the server wait although the node is idle."""
    memory_limit: Name = "2Gi"


class Canary(Section):
    """How traffic moves to a new model, and what stops it. Needs a gateway."""

    steps: list[Percent] = [10, 50]
    """Shares of the traffic, one after the other; then all of it."""
    hold_seconds: Annotated[float, Field(gt=0)] = 60.0
    """How long each step is watched."""
    min_requests: PositiveInt = 50
    """With fewer requests in a step, to the new or the old model, the step is not judged and passes."""
    max_error_increase: Annotated[float, Field(ge=0, le=1)] = 0.01
    """How much larger the share of requests may be that are not answered with 200; chance is allowed for."""
    max_latency_ratio: Annotated[float, Field(ge=1)] = 1.5
    """How many times longer the mean request may take."""
    latency_slack_ms: Annotated[float, Field(ge=0)] = 5.0
    """A mean that is longer by less is not judged."""
    max_prediction_shift: Annotated[float, Field(ge=0, le=1)] = 0.15
    """Largest distance between the distributions of the predictions (Kolmogorov-Smirnov; of classes: largest
    difference of one class's share); chance is allowed for."""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if sorted(set(self.steps)) != self.steps:
            raise ValueError(f"steps must rise: {self.steps}")
        return self


class Deployment(Section):
    """Where and how a published model is served."""

    target: Literal["local", "kserve"] = "local"
    """local: the run ends with the published model, which `make serve` serves."""
    namespace: Name = "lockgate"
    service: str = ""
    """Name of the InferenceService and of the model in URLs; empty: the project's."""
    runtime: Name = "lockgate-predictor"
    """The ServingRuntime."""
    model_format: Name = "tensorflow"
    """As the ServingRuntime names it."""
    min_replicas: PositiveInt = 1
    """At the gateway's full load, too: while traffic moves, old and new model have this many each."""
    max_replicas: PositiveInt | None = None
    autoscaler: Literal["none", "hpa", "keda", "external"] = "none"
    """none: always min_replicas."""
    resources: Resources = Resources()
    service_account: str = "lockgate-predictor"
    """Of the model server, which reads the model with it."""
    storage_secret: str = ""
    """Secret with the credentials of the model store; empty: what the service account has."""
    node_selector: dict[str, str] = {}
    gateway: Annotated[str, Field(pattern=r"^$|^[-a-z0-9.]+/[-a-z0-9.]+$")] = ""
    """Gateway (Gateway API) as namespace/name; empty: no traffic split and no URL outside of the cluster."""
    hostname: str = ""
    """Under which the gateway serves the model; needed with a gateway."""
    golden: Golden = Golden()
    canary: Canary = Canary()
    settle_seconds: Annotated[float, Field(ge=0)] = 5.0
    """How long gateway and cluster may take to follow a change of the traffic."""
    rollout_seconds: Annotated[float, Field(gt=0)] = 600.0
    """How long new pods may take to be ready."""
    scheduling_seconds: Annotated[float, Field(ge=0)] = 120.0
    """How long a pod may wait for room, e.g. for the cluster to grow."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 3600.0
    """For the whole stage; a later run goes on where it stood."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas is {self.max_replicas}, min_replicas {self.min_replicas}; raise the former")
        if bool(self.gateway) != bool(self.hostname):
            raise ValueError("give both gateway and hostname, or none of them")
        needed = len(self.canary.steps) * (self.canary.hold_seconds + self.settle_seconds) if self.gateway else 0
        if needed >= self.timeout_seconds:
            raise ValueError(
                f"the canary steps alone take {needed:g} s; raise timeout_seconds ({self.timeout_seconds:g})"
            )
        return self


# ------------------------------------------------------------------------------------------ monitoring

Period = Literal["hour", "day", "week", "month"]
ServerUrl = Annotated[str, Field(pattern=r"^$|^https?://[^\s/@?#]+(/[^\s@?#]*)?$")]
"""Without user and password, which come from the environment."""
Rule = Literal["ignore", "watch", "retrain", "page"]


class LogColumns(Section):
    """format table: which column of the files holds what; features and keys are found by their own names."""

    request_time: Name = "request_time"
    """A time, or seconds since 1970; rows without one are left out."""
    request_id: str = "request_id"
    """Rows that have the same one, and the same key, are one row. Where there is none, no row counts as a copy."""
    model_version: str = "model_version"
    """Where there is none, all rows are of the version in production."""
    prediction: str = ""
    """The model's answer: a probability, a class or a number; empty: as the model's own outputs are called."""
    features: dict[Name, Name] = {}
    """By feature, the column that holds it, where it has another name."""


class RequestLog(Section):
    """What was asked and answered."""

    source: str = ""
    """lockgate: the server's `log_uri`. kserve, table: path or URI with wildcards, and {YYYY} {MM} {DD} {HH} where the
    names tell the time."""
    format: Literal["lockgate", "kserve", "table"] = "lockgate"
    """lockgate: what our server logs. kserve: events of KServe's logger, as JSON, JSON lines, CSV or Parquet. table:
    any CSV or Parquet with a row a prediction."""
    columns: LogColumns = LogColumns()


class Labels(Section):
    """Where the labels of logged rows come from, later."""

    source: str = ""
    """As data.source, and its default."""
    by: Literal["key", "request_id"] = "key"
    """Rows are found by data.key, or by the request's id in the column `request_id` of the labels."""
    later_spans: Annotated[int, Field(ge=0)] = 0
    """So many spans behind the window are read, too: where a label is filed under the day on which it came."""


class Limits(Section):
    """From where on a difference matters. Below, it may be as certain as it likes."""

    jensen_shannon: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Between the distributions of a feature (base 2, bias of few rows taken out): 0.1 is a shift by about 0.8 standard
    deviations."""
    l_infinity: Annotated[float, Field(ge=0, le=1)] = 0.15
    """Largest difference of one category's share."""
    missing: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Difference of the shares of missing values."""
    new_values: Annotated[float, Field(ge=0, le=1)] = 0.02
    """Share of rows whose category was never seen in training."""
    prediction: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Jensen-Shannon divergence between the distributions of the predictions."""
    drifted_features: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the features that differ from training, from which on the rows as a whole do."""
    quality: Annotated[float, Field(ge=0)] = 0.02
    """How much worse than at evaluation the metric may be, in its unit."""
    calibration: Annotated[float, Field(ge=0)] = 0.05
    """Difference between mean probability and share of positive rows; of a regression: between the means of prediction
    and label, in standard deviations of the label."""
    silence: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of the window, at its end, without a row."""
    volume: Annotated[float, Field(gt=1)] = 3.0
    """How many times more or fewer rows than in the median of the windows before."""
    features: dict[Name, "FeatureLimits"] = {}
    """Exceptions, by feature."""


class FeatureLimits(Section):
    """Limits of one feature; what is left out is as for all."""

    jensen_shannon: Annotated[float, Field(ge=0, le=1)] | None = None
    l_infinity: Annotated[float, Field(ge=0, le=1)] | None = None
    missing: Annotated[float, Field(ge=0, le=1)] | None = None
    new_values: Annotated[float, Field(ge=0, le=1)] | None = None


class MonitoringRules(Section):
    """Which finding gives which verdict; the gravest wins."""

    anomaly: Rule = "page"
    """Rows break the schema, in the environment in which there is no label."""
    no_rows: Rule = "page"
    """Nothing was asked, though something was in the window before."""
    volume: Rule = "watch"
    silence: Rule = "watch"
    unreadable: Rule = "watch"
    """Files of the log cannot be read."""
    skew: Rule = "watch"
    """A feature is distributed otherwise than in training."""
    data_skew: Rule = "watch"
    """Many features are (limits.drifted_features). Where no labels come, retrain; the window should then hold whole
    cycles, as any hour differs from all days."""
    drift: Rule = "watch"
    """A feature is distributed otherwise than in the window before."""
    new_values: Rule = "watch"
    missing: Rule = "watch"
    prediction_drift: Rule = "watch"
    calibration: Rule = "retrain"
    quality: Rule = "retrain"
    slice_quality: Rule = "watch"
    canary: Rule = "page"
    """The newer of two versions in service is worse than the other."""


class Secret(Section):
    """Where a secret is: in a variable of the environment or in a file. It never stands in the settings themselves."""

    variable: str = ""
    """E.g. SLACK_URL."""
    file: str = ""
    """Instead: its path, e.g. /var/run/secrets/lockgate-notify/slack-url."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if bool(self.variable) == bool(self.file):
            raise ValueError("name either a variable or a file that holds it")
        return self


Event = Literal["watch", "retrain", "page", "started"]


class Receiver(Section):
    """Somebody who is told."""

    events: Annotated[list[Event], Field(min_length=1)] = ["page"]
    """Of which verdicts; started: that training was started."""


class WebhookReceiver(Receiver):
    """A URL that takes JSON: project, event, window, reason, evidence, findings, model and run."""

    kind: Literal["webhook"]
    url: Secret
    token: Secret | None = None
    """Sent as `Authorization: Bearer …`."""


class SlackReceiver(Receiver):
    """A channel of Slack, or of whatever takes Slack's incoming webhooks (Mattermost, Rocket.Chat)."""

    kind: Literal["slack"]
    url: Secret
    """Of the incoming webhook; who knows it may write."""


class EmailReceiver(Receiver):
    """People with addresses."""

    kind: Literal["email"]
    host: Name
    """SMTP server."""
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    security: Literal["starttls", "tls", "none"] = "starttls"
    """none: only where the way to the server is private; then no password is sent."""
    sender: Name
    to: Annotated[list[Name], Field(min_length=1)]
    user: str = ""
    """Empty: nobody logs in."""
    password: Secret | None = None

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if bool(self.user) != bool(self.password):
            raise ValueError("give both user and password, or none of them")
        if self.password and self.security == "none":
            raise ValueError("a password is not sent over a connection that anybody can read; set security to starttls")
        return self


class AlertmanagerReceiver(Receiver):
    """Prometheus' Alertmanager, which groups, silences and forwards as for all other alerts."""

    kind: Literal["alertmanager"]
    url: Name
    """E.g. http://alertmanager.monitoring:9093, before /api/v2."""
    token: Secret | None = None
    """Sent as `Authorization: Bearer …`."""
    labels: dict[str, str] = {}
    """Of the alert, beside alertname, project, verdict, window and severity."""


AnyReceiver = Annotated[
    WebhookReceiver | SlackReceiver | EmailReceiver | AlertmanagerReceiver, Field(discriminator="kind")
]


class Response(Section):
    """What follows from a verdict."""

    retrain: bool = False
    """Whether the verdict retrain starts training: on a cluster a run of the schedule below, on this machine a run."""
    window: Annotated[str, Field(pattern=f"^$|{WINDOW_PATTERN}")] = ""
    """What it trains on, e.g. "last 9 months": those that end with the judged window. Empty: data.window."""
    schedule: str = ""
    """Recurring run of Kubeflow Pipelines that is copied, paused or not; empty: <project>-training, which `schedule
    create` makes."""
    kfp_url: str = ""
    """Of the API of Kubeflow Pipelines, before /apis; empty: that of the pod's cluster."""
    namespace: str = ""
    """Of the runs, where Kubeflow has one for each user; empty: the pod's own, where that is so."""
    token_file: str = ""
    """Holds the token for the API; empty: the one that Kubeflow puts into pods, where it does."""
    notify: list[AnyReceiver] = []
    """Who is told."""


class Monitoring(Section):
    """How the served model is watched."""

    log: RequestLog = RequestLog()
    labels: Labels = Labels()
    window: Period = "day"
    """What a scheduled run judges: the last whole one before its time (UTC; a week begins on Monday)."""
    delay: Annotated[int, Field(ge=0)] = 0
    """So many periods a scheduled run waits for labels: it judges the last whole one before these."""
    history: str = ""
    """Folder or URI of the records, one a window; empty: beside the model store."""
    metric: MetricName | None = None
    """Which metric quality is judged by. Default: auc for binary, log_loss for multiclass, rmse for regression."""
    min_rows: PositiveInt = 100
    """With fewer rows, or fewer labelled ones, distances and quality are not judged."""
    error_rate: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Share of false ones among the differences that are found (Benjamini, Hochberg, 1995), were rows independent."""
    compare_windows: PositiveInt = 1
    """Drift is measured against so many windows before, taken together."""
    limits: Limits = Limits()
    rules: MonitoringRules = MonitoringRules()
    confirmations: PositiveInt = 2
    """In so many windows in a row a finding must stand before it means retrain; until then it means watch."""
    page_confirmations: PositiveInt = 1
    """The same before it means page."""
    cooldown_windows: Annotated[int, Field(ge=0)] = 1
    """For so many windows after a retrain, another retrain means watch."""
    bootstrap: Bootstrap = Bootstrap()
    """Confidence intervals of quality."""
    max_anomaly_share: Annotated[float, Field(ge=0, lt=1)] = 0.001
    """Values that break the schema in fewer rows than that are told of, and are no finding."""
    pushgateway: ServerUrl = ""
    """URL of a Prometheus Pushgateway that is given the figures of each window; empty: none is. How to log in comes
    from the environment (docs/monitoring-dashboards.md)."""
    response: Response = Response()
    """What follows."""


# --------------------------------------------------------------------------------- batch prediction

DATABASES = ("postgresql", "sqlite")
TABLE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]{0,50}(\.[A-Za-z_][A-Za-z0-9_]{0,50})?$"


Version = Annotated[str, Field(min_length=1, coerce_numbers_to_str=True)]


class BatchOutput(Section):
    """Where predictions go, and how they are written. A span is written whole or not at all."""

    target: Name = "predictions"
    """A local path (from the project's folder), gs:// or s3:// URI, below which the project gets a folder; or a
    database: postgresql://host:5432/name or sqlite:///path, credentials from the environment."""
    format: Literal["parquet", "csv", "jsonl"] = "parquet"
    compression: Literal["auto", "none", "gzip", "zstd", "snappy"] = "auto"
    """auto: zstd for parquet, none for others. snappy: parquet only."""
    partition_by: str = ""
    """Another column by which the files of a span are divided, e.g. carrier."""
    max_partitions: Annotated[int, Field(ge=1, le=10_000)] = 500
    """More values of partition_by are refused."""
    file_rows: Annotated[int, Field(ge=1)] = 5_000_000
    """A file is followed by another after so many rows."""
    table: Annotated[str, Field(pattern=rf"{TABLE_PATTERN}|^$")] = ""
    """database: the table, e.g. scores or risk.scores; empty: the project's name and `_predictions`. It is made
    unless it is there."""

    @property
    def is_database(self) -> bool:
        """Whether the target is a table."""
        return self.target.partition("://")[0] in DATABASES

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        scheme, _, rest = self.target.partition("://")
        if rest and scheme not in (*DATABASES, "gs", "s3", "file"):
            raise ValueError(
                f"target is '{scheme}://…'; use a local path, gs://, s3://, postgresql:// or sqlite:// (nothing else "
                "is written to)"
            )
        if scheme == "postgresql" and ":" in rest.partition("@")[0] and "@" in rest:
            raise ValueError("target holds a password; take it out and set PGPASSWORD, or a secret on a cluster")
        if self.is_database and self.partition_by:
            raise ValueError("a table has no partitions; take partition_by out")
        if self.table and not self.is_database:
            raise ValueError(f"table is for a database, and target is '{self.target}'; take table out")
        if self.compression == "snappy" and self.format != "parquet":
            raise ValueError("snappy is for parquet; set compression to gzip, zstd or none")
        return self


class Batch(Section):
    """Batch prediction (pipeline batch_prediction): which rows, by which models, written where."""

    source: str = ""
    """Where the rows come from, as data.source; empty: data.source itself. A label is not needed, and not read."""
    model: Version = "production"
    """The version that decides: production, or one that stays, e.g. 7 or v0007."""
    challengers: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,30}$")], Version] = {}
    """Versions (or URIs of published ones) that predict the same rows beside it, by the name that begins their
    columns, e.g. challenger: 8 gives challenger_probability."""
    columns: list[Name] = []
    """Raw columns that are written beside the predictions; empty: all, which is what monitoring wants."""
    threshold: Fraction | Literal["model"] = "model"
    """binary: from which probability on the column `decision` is positive. model: each model's own."""
    labels: list[Name] = []
    """binary: what `decision` says, of a negative and of a positive row; empty: false and true."""
    reasons: Annotated[int, Field(ge=0, le=100)] = 0
    """So many reasons for each of the top rows, in the column `reasons`; 0: none. A row costs about 128 predictions."""
    top_rows: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Rows with the highest predictions (of several classes: of the surest), which get reasons and are shown."""
    max_rejected: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of rows that the model may refuse to predict; with more, nothing is written."""
    max_shift: Annotated[float, Field(gt=0, le=1)] | None = None
    """Largest distance between the predictions of this span and of the one before it (Kolmogorov-Smirnov; of classes:
    largest difference of one's share); with more, nothing is written. Default: only reported."""
    output: BatchOutput = BatchOutput()
    beam_args: list[str] = []
    """Options of a Beam pipeline that predicts, e.g. [--runner=FlinkRunner, --flink_master=…]; empty: in memory."""
    scratch: str = ""
    """With beam_args: gs:// or s3:// URI that Beam's workers reach as well, for what goes to and fro; empty: they are
    on the machine of the stage."""

    @model_validator(mode="after")
    def _two_labels(self) -> Self:
        if self.labels and (len(self.labels) != 2 or self.labels[0] == self.labels[1]):
            raise ValueError(f"labels has {self.labels}; name the negative and the positive one, e.g. [on_time, late]")
        return self


# --------------------------------------------------------------------------------- publication, prices


class Publication(Section):
    """Where a blessed model goes."""

    store: Name = "models"
    """The model store: a local path (from the project's folder), gs:// or s3:// URI."""
    description: str = ""
    """For the model card."""
    owner: str = ""
    """For the model card."""


class Retention(Section):
    """What `python -m pipelines prune` keeps."""

    models: PositiveInt = 10
    """Newest versions that keep their files, beside the one in production, the one before it, and those that are
    served."""
    log_days: PositiveInt | None = 90
    """Days of our own request log (monitoring.log); none: all."""
    run_days: PositiveInt | None = 30
    """Days that runs stay: on this machine and, where the project is deployed to a cluster, there; none: for ever."""


class Prices(Section):
    """What resources cost, for the run report."""

    cpu_hour: Annotated[float, Field(ge=0)] = 0.04
    """One core for an hour."""
    gib_hour: Annotated[float, Field(ge=0)] = 0.005
    """One GiB of memory for an hour."""
    currency: str = "USD"


# ------------------------------------------------------------------------------------------- cluster

StageName = Literal[
    "ingest_data",
    "validate_data",
    "gate",
    "transform_data",
    "tune_model",
    "train_model",
    "predict_batch",
    "evaluate_model",
    "explain_model",
    "check_serving",
    "publish_model",
    "deploy_model",
    "monitor_model",
    "write_predictions",
    "respond_to_verdict",
    "report_run",
]
Cpu = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?$|^[0-9]+m$", coerce_numbers_to_str=True)]
Memory = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?[KMGT]i?$")]
LabelKey = Annotated[str, Field(pattern=r"^([a-z0-9][-a-z0-9.]*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")]
LabelValue = Annotated[str, Field(max_length=63, pattern=r"^$|^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")]
ObjectName = Annotated[str, Field(max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
Seconds = Annotated[PositiveInt, Field(lt=2**31)]


class Accelerator(Section):
    """What a stage gets beside processors, e.g. GPUs."""

    type: Name = "nvidia.com/gpu"
    """The resource, as its device plugin names it."""
    count: PositiveInt = 1


class Toleration(Section):
    """A taint of nodes that does not keep a stage away, as in a pod's specification."""

    key: str = ""
    """Empty: all taints; operator must then be Exists."""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    """Empty: all."""

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        if self.operator == "Equal" and not self.key:
            raise ValueError("a toleration without a key tolerates all taints; say so with operator: Exists")
        return self


class Volume(Section):
    """A claim (PersistentVolumeClaim) that is there already, mounted into a stage."""

    claim: ObjectName
    path: Annotated[str, Field(pattern=r"^/.+")]
    """Where."""


class StageProfile(Section):
    """How stages run on a cluster. What is left out is as for all stages, or as the compiled pipeline has it."""

    cpu: Cpu | None = None
    """Asked for, e.g. 500m or 2."""
    cpu_limit: Cpu | None = None
    memory: Memory | None = None
    """Asked for, e.g. 2Gi; the limit is raised to it."""
    memory_limit: Memory | None = None
    """A stage that takes more is killed."""
    accelerator: Accelerator | None = None
    node_selector: dict[LabelKey, LabelValue] | None = None
    """Labels that a node must have."""
    tolerations: list[Toleration] | None = None
    """E.g. for spot nodes."""
    labels: dict[LabelKey, LabelValue] | None = None
    """Of the pod, beside ours."""
    annotations: dict[LabelKey, str] | None = None
    """Of the pod."""
    volumes: list[Volume] | None = None
    timeout_seconds: Seconds | None = None
    """After which the pod is stopped, and the run fails; waiting for a node does not count."""
    image_pull_secrets: list[ObjectName] | None = None
    """For a registry that asks who pulls."""

    @model_validator(mode="after")
    def _within_limits(self) -> Self:
        pairs = [(name, getattr(self, name), getattr(self, f"{name}_limit")) for name in ("cpu", "memory")]
        for name, asked, limit in pairs:
            if asked and limit:
                from lightkube.utils.quantity import parse_quantity  # stages, which read other sections, do without

                if (parse_quantity(asked) or 0) > (parse_quantity(limit) or 0):
                    raise ValueError(f"{name} is {asked}, more than it may have ({name}_limit: {limit})")
        return self


class Cluster(Section):
    """How a run goes on a cluster; a local run does not look at it. It does not change the result."""

    service_account: str = ""
    """Of the pods; empty: the cluster's default for pipelines."""
    ttl_seconds: Seconds | None = None
    """How long finished pods stay, for looking at them; none: as the compiled pipeline has it."""
    timeout_seconds: Seconds | None = None
    """After which a run is stopped, whatever it waits for; none: as the compiled pipeline has it."""
    all_stages: StageProfile = StageProfile()
    stages: dict[StageName, StageProfile] = {}
    """By the stage's name; goes before all_stages, key by key."""


# --------------------------------------------------------------------------------------------- stream

Topic = Annotated[str, Field(max_length=249, pattern=r"^$|^[A-Za-z0-9._-]+$")]


class Stream(Section):
    """How events of a Kafka topic are decided. Credentials come from the environment (docs/streaming.md)."""

    servers: Name = "localhost:9092"
    """Bootstrap servers, with commas between them."""
    input_topic: Topic = ""
    """Topic of the events; empty: the project's name and `.events`."""
    output_topic: Topic = ""
    """Topic of the decisions; empty: the project's name and `.decisions`."""
    dead_letter_topic: Topic = ""
    """Topic of events that cannot be decided; empty: the project's name and `.dead-letters`."""
    group: str = ""
    """Consumer group; empty: the project's name."""
    start: Literal["earliest", "latest"] = "earliest"
    """Where a group that has committed nothing yet begins."""
    format: EventFormat = EventFormat()
    event_id: str = ""
    """Field that names an event; empty: its topic, partition and offset do."""
    event_time: str = ""
    """Field with the time of an event, as ISO 8601 text, or a number of seconds or milliseconds since 1970; empty: the
    message's own."""
    pass_through: list[Name] = []
    """Fields that a decision repeats."""
    unknown_fields: Literal["ignore", "reject"] = "ignore"
    """What becomes of an event with a field that neither the model nor this section knows. ignore: it is decided, and
    counted."""
    duplicates: Literal["count", "drop"] = "count"
    """What becomes of an event whose id was seen within the window. count: it is decided again, and says so."""
    duplicate_window: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Events of a partition among which ids are compared; they are read again when a partition is taken over. 0: none
    are."""
    late_seconds: Annotated[float, Field(gt=0)] = 3600.0
    """Older events count as late. They are decided."""
    future_seconds: Annotated[float, Field(ge=0)] = 60.0
    """Events further ahead of the clock count as future. They are decided."""
    max_batch_events: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Events of one transaction, which one call of the model decides."""
    linger_ms: Annotated[float, Field(ge=0, le=10_000)] = 0.0
    """How long a batch waits for more events after its first; 0: not at all."""
    max_event_bytes: Annotated[int, Field(ge=1, le=10_000_000)] = 900_000
    """A larger event is not decided; of its bytes so many are kept. Stay below what the topics allow
    (max.message.bytes, 1 MB by default)."""
    reasons: Annotated[int, Field(ge=0)] = 0
    """Reasons that a decision gives; each costs about 128 predictions."""
    version: str = "latest"
    """Of the model: one that stays, or latest: the one in production, followed while the stream runs."""
    store_poll_seconds: Annotated[float, Field(gt=0)] = 10.0
    """How often the model store is asked which version is in production."""
    endpoint: str = ""
    """URL of a model server that speaks the Open Inference Protocol, up to and with /v2/models/NAME; empty: the model
    is called inside the stream's own process."""
    endpoint_seconds: Annotated[float, Field(gt=0)] = 10.0
    """After which a call of the endpoint is given up, and tried again."""
    session_seconds: Annotated[float, Field(ge=1, le=300)] = 10.0
    """After which a member of the group that is not heard of loses its partitions."""
    transaction_seconds: Annotated[float, Field(ge=1, le=900)] = 10.0
    """After which the broker gives up the transaction of a member that is not heard of."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        topics = [topic for topic in (self.input_topic, self.output_topic, self.dead_letter_topic) if topic]
        if len(set(topics)) < len(topics):
            raise ValueError("input_topic, output_topic and dead_letter_topic must differ")
        if self.duplicates == "drop" and not self.duplicate_window:
            raise ValueError("duplicates is drop, so give duplicate_window, e.g. 10000")
        if self.reasons and self.endpoint:
            raise ValueError("reasons are given by a model in the stream's own process: leave out endpoint, or reasons")
        return self

    def named(self, project: str) -> "Stream":
        """Gives the section with every name filled in."""
        return self.model_copy(
            update={
                "input_topic": self.input_topic or f"{project}.events",
                "output_topic": self.output_topic or f"{project}.decisions",
                "dead_letter_topic": self.dead_letter_topic or f"{project}.dead-letters",
                "group": self.group or project,
            }
        )


# ------------------------------------------------------------------------------------------- project


class Project(Section):
    """A whole `pipeline.yaml`."""

    name: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$")]
    """Of the project, its model and its deployment: lower case, digits and dashes."""
    data: Data
    schema_file: Annotated[str | None, Field(alias="schema")] = None
    """TFMD schema in text format, from the project's folder. Without one a schema is inferred and written
    out for review."""
    task: Task
    validation: Validation = Validation()
    features: Features = Features()
    user_module: str | None = None
    """Python file, from the project's folder, with `preprocessing_fn(inputs)` or
    `build_model(inputs, task, options)` or both; it travels with the run."""
    model: Model | None = None
    """The one model to train; without it, the best of tuning.candidates."""
    tuning: Tuning = Tuning()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    explanation: Explanation = Explanation()
    serving: Serving = Serving()
    publication: Publication = Publication()
    retention: Retention = Retention()
    batch: Batch = Batch()
    deployment: Deployment = Deployment()
    monitoring: Monitoring = Monitoring()
    stream: Stream = Stream()
    cluster: Cluster = Cluster()
    prices: Prices = Prices()

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        if self.model and self.tuning.candidates:
            raise ValueError("both model and tuning.candidates say which model; take one of them out")
        return self

    @property
    def selection(self) -> Tuning:
        """Section `tuning` with its candidates named."""
        named = self.tuning.candidates or ([self.model] if self.model else default_candidates(self.task))
        return self.tuning.model_copy(update={"candidates": each_count(named)})

    def task_faults(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Yields the settings that do not fit the type of the task: where, and what to do."""
        task, tuning, training = self.task, self.tuning, self.training
        if self.model and (fault := wrong_kind("model.kind", self.model, task)):
            yield ("model", "kind"), fault
        for index, candidate in enumerate(tuning.candidates):
            if fault := wrong_kind(f"tuning.candidates[{index}].kind", candidate, task):
                yield ("tuning", "candidates", index, "kind"), fault
        if tuning.metric and tuning.metric not in SELECTION_METRICS[task.type]:
            yield (
                ("tuning", "metric"),
                f"tuning.metric: {task.described} is not compared by '{tuning.metric}'; use one of "
                f"{', '.join(SELECTION_METRICS[task.type])}",
            )
        yield from self._faults_of_decision()
        if not task.is_unsupervised:
            return
        if task.type == "anomaly_detection" and not task.label and (len(tuning.candidates) > 1 or tuning.trials):
            yield (
                ("tuning", "candidates" if len(tuning.candidates) > 1 else "trials"),
                "tuning: without a label nothing tells which anomaly detector is better; name task.label, or name one "
                "model in section model and no trials",
            )
        for name in ("calibration", "class_weight"):
            if getattr(training, name) != "none":
                yield (
                    ("training", name),
                    f"training.{name}: {task.described} learns from no label and gives no probabilities; set it to "
                    "none",
                )

    def _faults_of_decision(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        task, by = self.task, self.training.decision.by
        where = ("training", "decision", "by")
        if by == "contamination" and task.type != "anomaly_detection":
            yield where, f"training.decision.by: contamination is for anomaly_detection, not for {task.described}"
        if self.training.decision.looks_at_labels and task.type == "anomaly_detection" and not task.label:
            yield where, f"training.decision.by: {by} needs labels; name task.label, or set it to contamination"

    @model_validator(mode="after")
    def _store_within_reach(self) -> Self:
        store = self.publication.store
        if self.deployment.target == "kserve" and not store.startswith(("gs://", "s3://")):
            raise ValueError(
                f"publication.store is '{store}', where a cluster cannot read models; set it to gs:// or s3:// for "
                "deployment.target kserve"
            )
        return self
