"""How the served model is watched, and what follows."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from components.settings.data import WINDOW_PATTERN
from components.settings.evaluation import Bootstrap, MetricName
from components.settings.section import Name, Section, ServerUrl

Period = Literal["hour", "day", "week", "month"]

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
    """lockgate: the server's `log_uri`, by default `deployment.request_log.uri`. kserve, table: path or URI with
    wildcards, and {YYYY} {MM} {DD} {HH} where the names tell the time."""
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
