"""What `pipeline.yaml` may say, section by section.

A section is one argument of the compiled pipeline, so that a change to `training` leaves the cached
results of `ingest_data` alone. Arguments travel as JSON, where 3.0 may arrive as 3 and None is left out:
stages read them back with `Section.model_validate(argument)`.
"""

from components.settings.batch import DATABASES, TABLE_PATTERN, Batch, BatchOutput, Version
from components.settings.cluster import (
    Accelerator,
    Cluster,
    Cpu,
    LabelKey,
    LabelValue,
    Memory,
    ObjectName,
    Seconds,
    StageName,
    StageProfile,
    Toleration,
    Volume,
)
from components.settings.data import (
    WINDOW_PATTERN,
    ColumnSplit,
    CsvOptions,
    Data,
    EventFormat,
    HashSplit,
    KafkaOptions,
    Split,
    TimeSplit,
)
from components.settings.evaluation import (
    NEUTRAL_METRICS,
    AlertBudget,
    AnomalyMetric,
    Bootstrap,
    BudgetMetric,
    ClassMetric,
    ClusterMetric,
    Evaluation,
    Gain,
    LabelledClusterMetric,
    MetricName,
    NumberMetric,
    Regression,
    ScoreMetric,
    SliceThreshold,
    Threshold,
    evaluation_faults,
    gain_metric,
    lead_metric,
    metrics_of,
)
from components.settings.explanation import Explanation
from components.settings.features import (
    CategoricalFeatures,
    Cross,
    DatePart,
    DatetimeFeatures,
    Features,
    NumericFeatures,
)
from components.settings.models import (
    MOST_CLUSTERS,
    UNSUPERVISED_KINDS,
    AutoencoderModel,
    BoostedTreesModel,
    CustomModel,
    IsolationForestModel,
    KMeansModel,
    LinearModel,
    MlpModel,
    Model,
    RandomForestModel,
    StackModel,
    SupervisedModel,
    WideAndDeepModel,
    wrong_kind,
)
from components.settings.monitoring import (
    AlertmanagerReceiver,
    AnyReceiver,
    EmailReceiver,
    Event,
    FeatureLimits,
    Labels,
    Limits,
    LogColumns,
    Monitoring,
    MonitoringRules,
    Period,
    Receiver,
    RequestLog,
    Response,
    Rule,
    Secret,
    SlackReceiver,
    WebhookReceiver,
)
from components.settings.project import Project
from components.settings.publication import Prices, Publication, Registries, Retention
from components.settings.section import Fraction, Name, Section, ServerUrl, Severity
from components.settings.serving import Canary, Deployment, Golden, Percent, Resources, Serving
from components.settings.stream import Stream, Topic
from components.settings.task import UNSUPERVISED, Comparison, Comparisons, Task, TaskType, Validation
from components.settings.training import Decision, EarlyStopping, Training
from components.settings.tuning import (
    SELECTION_METRICS,
    Range,
    SelectionMetric,
    Tuning,
    default_candidates,
    each_count,
    with_hyperparameters,
)
from components.settings.window_features import COLUMN_AGGREGATES, Duration, WindowFeature, WindowFeatures
