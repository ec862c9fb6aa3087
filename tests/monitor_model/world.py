"""A published model without its graph, requests logged by the real server's log, and labels: what monitoring reads.

The model's answers are those of a known function, so that a test knows what is true.
"""

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from components.features import Label
from components.model_card import CodeFacts, DataFacts, EvaluationFacts, ModelFacts, SliceFacts
from components.model_spec import ModelInput, ModelSpec, outputs_of
from components.model_store import ModelStore
from components.monitor_model.monitoring import monitor
from components.monitor_model.sections import Settings
from components.monitoring_record import MonitoringRecord
from components.predictor.request_log import LogOptions, RequestLog
from components.predictor.served_model import Facts
from components.profiles import make_profile, profiled_columns, write_profile
from components.rows import MISSING_STRING, Arrays
from components.schema import parse_schema

SCHEMA = """\
default_environment: "TRAINING"
default_environment: "SERVING"
feature { name: "visit" type: BYTES presence { min_fraction: 1.0 } }
feature { name: "price" type: FLOAT presence { min_fraction: 1.0 } float_domain { min: 0 max: 1000 } }
feature { name: "age" type: INT presence { min_fraction: 0.5 } int_domain { min: 0 max: 120 } }
feature { name: "city" type: BYTES presence { min_fraction: 1.0 } domain: "cities" }
feature { name: "shop" type: BYTES presence { min_fraction: 1.0 } }
feature { name: "bought" type: INT presence { min_fraction: 1.0 } not_in_environment: "SERVING"
          int_domain { min: 0 max: 1 is_categorical: true } }
string_domain { name: "cities" value: "Paris" value: "Rome" value: "Oslo" }
"""
CITIES = ("Paris", "Rome", "Oslo")
SHOPS = tuple(f"shop-{i}" for i in range(8))
INPUTS = (
    ModelInput(name="price", tensor="price", dtype="float32", required=True),
    ModelInput(name="age", tensor="age", dtype="int64", required=False),
    ModelInput(name="city", tensor="city", dtype="string", required=True),
    ModelInput(name="shop", tensor="shop", dtype="string", required=True),
)
LABELS: dict[str, Label] = {
    "binary": Label(name="bought", kind="binary", classes=["0", "1"], positive="1"),
    "regression": Label(name="bought", kind="regression"),
    "multiclass": Label(name="bought", kind="multiclass", classes=["a", "b", "c"]),
}
MONTH = datetime(2025, 3, 1, tzinfo=UTC)


@dataclass
class Rows:
    """Requests and what comes true."""

    price: npt.NDArray[np.float32]
    age: npt.NDArray[np.int64]
    """The smallest int64: missing."""
    city: npt.NDArray[np.object_]
    shop: npt.NDArray[np.object_]
    visit: npt.NDArray[np.object_]
    label: npt.NDArray[np.int64] = field(init=False)
    flip: bool = False

    def __post_init__(self) -> None:
        draw = np.random.default_rng(len(self.price))
        truth = probability(self)
        self.label = (draw.random(len(self.price)) < (1 - truth if self.flip else truth)).astype(np.int64)

    def __len__(self) -> int:
        return len(self.price)

    def arrays(self, start: int, end: int) -> Arrays:
        """The features of some rows, as the server has them."""
        encoded = {name: _bytes(getattr(self, name)[start:end]) for name in ("city", "shop")}
        return {"price": self.price[start:end], "age": self.age[start:end], **encoded}

    def table(self) -> pa.Table:
        """As a dataset has them."""
        missing = self.age == np.iinfo(np.int64).min
        return pa.table(
            {
                "price": self.price,
                "age": pa.array(self.age, mask=missing),
                "city": pa.array(self.city, pa.string()),
                "shop": pa.array(self.shop, pa.string()),
                "bought": self.label,
            }
        )


def draw_rows(count: int, seed: int, shift: float = 0.0, flip: bool = False, missing: float = 0.1) -> Rows:
    """Draws rows; `shift` moves the price by so many standard deviations."""
    draw = np.random.default_rng(seed)
    age = draw.integers(18, 90, count)
    age[draw.random(count) < missing] = np.iinfo(np.int64).min
    return Rows(
        price=np.clip(draw.normal(50 + 15 * shift, 15, count), 1, 999).astype(np.float32),
        age=age,
        city=np.array(CITIES, object)[draw.integers(0, 3, count)],
        shop=np.array(SHOPS, object)[draw.integers(0, 8, count)],
        visit=np.array([f"{seed}-{i}" for i in range(count)], object),
        flip=flip,
    )


def probability(rows: Rows) -> npt.NDArray[np.float32]:
    """What the model says."""
    logit = (rows.price - 50) / 12 + np.where(rows.city == "Oslo", 1.0, -0.5)
    return (1 / (1 + np.exp(-logit))).astype(np.float32)


class World:
    """A project's folder."""

    def __init__(self, folder: Path, kind: str = "binary") -> None:
        self.folder = folder
        self.kind = kind
        self.log_uri = str(folder / "log")
        self.store = ModelStore(str(folder / "models"), "shop")
        self.versions: list[str] = []

    @property
    def version(self) -> str:
        """The newest version."""
        return self.versions[-1]

    def publish(self, seed: int = 1, auc: float = 0.808, profile: bool = True) -> str:
        """Publishes a version, trained on 20,000 rows."""
        files = self.folder / f"files-{seed}"
        (files / "model").mkdir(parents=True)
        (files / "statistics").mkdir()
        (files / "model" / "spec.json").write_text(self.spec(seed).model_dump_json())
        (files / "schema.pbtxt").write_text(SCHEMA)
        (files / "statistics" / "train.pb").write_bytes(b"")
        if profile:
            table = draw_rows(20_000, seed).table()
            kinds = profiled_columns(parse_schema(SCHEMA), table.schema)
            write_profile(files / "statistics", make_profile(table, table.to_batches(), kinds))
        paths = {str(p.relative_to(files)): p for p in sorted(files.rglob("*")) if p.is_file()}
        published = self.store.publish(paths, _card(seed, auc))
        self.versions.append(published.version)
        return published.version

    def spec(self, seed: int) -> ModelSpec:
        """What the model takes and gives."""
        label = LABELS[self.kind]
        return ModelSpec(
            inputs=list(INPUTS),
            outputs=outputs_of(label),
            label=label,
            weights_digest=f"{seed:064x}",
            train_rows=20_000,
            libraries={},
        )

    @contextmanager
    def logging(self, version: str = "", redact: Sequence[str] = ()) -> Iterator[RequestLog]:
        """The server's own log."""
        facts = Facts(
            directory=self.folder,
            spec=self.spec(1),
            name="shop",
            version=version or self.version,
            threshold=None,
            vocabularies={},
            redacted=frozenset(),
            example={},
            keys=("visit",),
        )
        options = LogOptions(self.log_uri, 1.0, 10_000_000, 5_000, 3600.0, redact)
        log = RequestLog(options, facts, lambda *_: None)
        try:
            yield log
        finally:
            log.close(60)

    def serve(
        self, rows: Rows, start: datetime = MONTH, days: float = 30, version: str = "", batch: int = 50, **options: Any
    ) -> None:
        """Logs rows as requests of up to `batch`, spread over some days."""
        answers = probability(rows)
        step = timedelta(days=days) / max(1, -(-len(rows) // batch))
        with self.logging(version, **options) as log:
            for number, first in enumerate(range(0, len(rows), batch)):
                last = min(first + batch, len(rows))
                log.add(
                    f"request-{start:%m}-{version}-{number}",
                    last - first,
                    rows.arrays(first, last),
                    self.outputs(answers[first:last]),
                    {"visit": _bytes(rows.visit[first:last])},
                    at=(start + number * step + timedelta(seconds=30)).timestamp(),
                )

    def outputs(self, answers: npt.NDArray[np.float32]) -> Arrays:
        """What the model gives for probabilities."""
        if self.kind == "regression":
            return {"value": answers}
        if self.kind == "multiclass":
            whole = np.stack([answers, (1 - answers) * 0.7, (1 - answers) * 0.3], axis=1).astype(np.float32)
            names = np.array([b"a", b"b", b"c"], object)
            return {"probabilities": whole, "class": names[whole.argmax(axis=1)]}
        return {"probability": answers}

    def label(self, rows: Rows, month: str = "2025-03", values: Sequence[Any] | None = None) -> None:
        """Files the labels of rows under a month, as data.source has them."""
        (self.folder / "data").mkdir(exist_ok=True)
        with (self.folder / "data" / f"visits-{month}.csv").open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow(["visit", "price", "bought"])
            labels = rows.label if values is None else values
            out.writerows(zip(rows.visit, rows.price, labels, strict=True))

    def settings(self, **monitoring: Any) -> Settings:
        """The sections, as a pipeline's arguments have them."""
        log = {"source": self.log_uri, **monitoring.pop("log", {})}
        return Settings.read(
            {"log": log, "bootstrap": {"resamples": 30}, **monitoring},
            {
                "source": str(self.folder / "data" / "visits-{YYYY}-{MM}.csv"),
                "key": ["visit"],
                "split": {"by": "hash", "key": ["visit"]},
            },
            {"type": self.kind, "label": "bought"},
            {},
            {"slices": [["city"]], "min_slice_rows": 100},
            {"store": str(self.folder / "models")},
        )

    def judge(self, window: str = "2025-03", **monitoring: Any) -> MonitoringRecord:
        """Runs the stage."""
        out = self.folder / "out"
        return monitor("shop", self.settings(**monitoring), window, "", str(out / "record"), str(out / "report.html"))

    def months(self, *rows: Rows, first: int = 3, **options: Any) -> None:
        """Serves and labels rows month by month."""
        for month, one in enumerate(rows, first):
            self.serve(one, datetime(2025, month, 1, tzinfo=UTC), days=28, **options)
            self.label(one, f"2025-{month:02d}")


def _card(seed: int, auc: float) -> ModelFacts:
    metrics: dict[str, float | None] = {"auc": auc, "log_loss": 0.53, "rmse": 0.42}
    return ModelFacts(
        description="",
        owner="",
        run_name=f"run-{seed}",
        parent=None,
        schema_digest="0",
        model_digest=f"{seed:064x}",
        inputs_digest=str(seed),
        data=DataFacts(source="", spans=[], digest="", splits={}, files=[]),
        evaluation=EvaluationFacts(
            verdict="pass",
            reason="",
            metrics=metrics,
            intervals={"auc": (auc - 0.005, auc + 0.005)},
            slices=[SliceFacts(name=f"city={city}", rows=5000, metrics=metrics) for city in CITIES],
            checks=[],
            decision_threshold=0.5,
        ),
        code=CodeFacts(version="0", registry="", image_tag="", details={}, locks={}, libraries={}),
        config={},
    )


def _bytes(values: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
    made = np.empty(len(values), object)
    made[:] = [MISSING_STRING if value is None else value.encode() for value in values]
    return made
