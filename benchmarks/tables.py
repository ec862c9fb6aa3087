"""Measures default settings on tables: `.venvs/dev/bin/python benchmarks/tables.py [TABLE.csv:LABEL[:TASK] …]`.

Each table becomes a project that names a source, a hashed split and a label, and nothing else: no schema, no features,
no model. The whole training pipeline runs on it. On the same rows scikit-learn's gradient boosting, random forest and
logistic (or linear) regression are fitted, each with its default settings. Without arguments: small tables that
scikit-learn and palmerpenguins bring.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn import datasets, ensemble, linear_model, metrics
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

ROOT = Path(__file__).resolve().parent.parent
KEY = "row_number"
METRIC = {"binary": "AUC", "multiclass": "log loss", "regression": "RMSE"}


@dataclass(frozen=True)
class Table:
    """What is predicted of what."""

    name: str
    rows: pd.DataFrame
    label: str
    task: str


def main() -> None:
    """Prints a line a table and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE.csv:LABEL[:TASK]")
    parser.add_argument("--seeds", type=int, default=1, help="splits for each table")
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="as of `python -m pipelines run`")
    options = parser.parse_args()
    tables = [read_table(text) for text in options.tables] or list(bundled())
    print(
        "| table | rows | metric | Lockgate | chosen | boosting | forest | linear | ahead of boosting | of the best |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for table in tables:
        for seed in range(options.seeds):
            print(line(table, seed, options.overrides), flush=True)


def bundled() -> Iterator[Table]:
    """Yields the small tables."""
    for name, task in (
        ("breast_cancer", "binary"),
        ("diabetes", "regression"),
        ("wine", "multiclass"),
        ("digits", "multiclass"),
    ):
        frame = getattr(datasets, f"load_{name}")(as_frame=True).frame
        frame.columns = [column.replace(" ", "_") for column in frame.columns]
        yield Table(name, frame, "target", task)
    import palmerpenguins

    yield Table("penguins", palmerpenguins.load_penguins(), "species", "multiclass")


def read_table(text: str) -> Table:
    """Reads a table as the command line names it."""
    path, label, *task = text.split(":")
    rows = pd.read_csv(path)
    rows = rows[rows[label].notna()]
    kinds = rows[label].nunique()
    guessed = "binary" if kinds == 2 else "multiclass" if kinds < 20 else "regression"
    return Table(Path(path).stem, rows, label, task[0] if task else guessed)


def line(table: Table, seed: int, overrides: list[str]) -> str:
    """Runs the pipeline and the others on one split of a table."""
    with tempfile.TemporaryDirectory() as folder:
        train, test, predictions, chosen = run(table, seed, Path(folder), overrides)
    truth = test[table.label]
    found = score(table.task, truth, predictions, sorted(train[table.label].astype(str).unique()))
    others = [score(table.task, truth, *reference(table, model, train, test)) for model in references(table.task, seed)]
    sign = 1 if table.task == "binary" else -1
    ahead = [sign * (found - other) for other in (others[0], max(others, key=lambda one: sign * one))]
    figures = " | ".join(f"{one:.4f}" for one in others)
    rows = f"{len(train):,} + {len(test):,}"
    return (
        f"| {table.name} | {rows} | {METRIC[table.task]} | {found:.4f} | {chosen} | {figures} | "
        f"{ahead[0]:+.4f} | {ahead[1]:+.4f} |"
    )


def run(table: Table, seed: int, folder: Path, overrides: list[str]) -> tuple[pd.DataFrame, pd.DataFrame, Any, str]:
    """Runs the training pipeline; gives train rows, eval rows, predictions of the latter, and the chosen kind."""
    table.rows.assign(**{KEY: range(len(table.rows))}).to_parquet(folder / "rows.parquet", index=False)
    task = {"type": table.task, "label": table.label}
    if table.task == "binary":
        task["positive"] = str(sorted(table.rows[table.label].astype(str).unique())[1])
    split = {"by": "hash", "key": [KEY], "salt": str(seed)}
    project = {
        "name": "table",
        "data": {"source": "rows.parquet", "key": [KEY], "split": split},
        "task": task,
        "evaluation": {"bootstrap": {"resamples": 0}},
        "serving": {"requests": 1},
    }
    (folder / "pipeline.yaml").write_text(json.dumps(project))
    command = [sys.executable, "-W", "ignore", "-m", "pipelines", "run", str(folder), "--runs", str(folder / "runs")]
    command += [f"--set={override}" for override in overrides]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    records = {path.stem: json.loads(path.read_text()) for path in folder.glob("runs/table-*/stages/*.json")}
    predicted = next((one for one in records.values() if one["stage"] == "predict_batch" and is_candidate(one)), None)
    if predicted is None:
        sys.exit(f"{table.name}: {done.stderr.strip()[-2000:]}")
    eval_rows = read(Path(predicted["artifacts"]["predictions"]["uri"]) / "eval")
    train = read(Path(records["ingest-data"]["artifacts"]["examples"]["uri"]) / "train")
    column = {"binary": "probability", "multiclass": "probabilities", "regression": "value"}[table.task]
    predictions = np.array(eval_rows[column].tolist())
    given = list(table.rows.columns)
    chosen = records["tune-model"]["parameters"]["model"]["kind"]
    return train[given], eval_rows[given], predictions, chosen


def is_candidate(record: dict[str, Any]) -> bool:
    """Tells whether a record is of the predictions of the new model."""
    predictions = record["artifacts"].get("predictions")
    return bool(predictions and list(Path(predictions["uri"]).glob("eval/*.parquet")))


def read(folder: Path) -> pd.DataFrame:
    """Reads all rows of a split."""
    return pd.concat([pd.read_parquet(file) for file in sorted(folder.glob("*.parquet"))], ignore_index=True)


def references(task: str, seed: int) -> list[Any]:
    """Gives scikit-learn's models with their default settings."""
    categories = make_column_selector(dtype_exclude=["number", "bool"])
    numbers = make_column_selector(dtype_include=["number", "bool"])
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=np.nan)
    one_hot = OneHotEncoder(handle_unknown="ignore", min_frequency=2, sparse_output=False)
    of_trees = make_column_transformer((ordinal, categories), (make_pipeline(SimpleImputer()), numbers))
    scaled = make_column_transformer((one_hot, categories), (make_pipeline(SimpleImputer(), StandardScaler()), numbers))
    is_number = task == "regression"
    boosting = ensemble.HistGradientBoostingRegressor if is_number else ensemble.HistGradientBoostingClassifier
    forest = ensemble.RandomForestRegressor if is_number else ensemble.RandomForestClassifier
    linear = linear_model.LinearRegression() if is_number else linear_model.LogisticRegression()
    return [
        boosting(random_state=seed, categorical_features="from_dtype"),
        make_pipeline(of_trees, SimpleImputer(strategy="constant", fill_value=-1), forest(random_state=seed)),
        make_pipeline(scaled, linear),
    ]


def reference(table: Table, model: Any, train: pd.DataFrame, test: pd.DataFrame) -> tuple[Any, list[str]]:
    """Fits a model and predicts the eval rows."""
    both = pd.concat([train, test]).drop(columns=table.label)
    # 254 categories are what boosting takes; more are numbered.
    texts = [c for c in both if not pd.api.types.is_numeric_dtype(both[c])]
    for name in texts:
        values = both[name].astype(object).map(str, na_action="ignore")
        both[name] = values.astype("category") if values.nunique() <= 254 else values.astype("category").cat.codes
    if not isinstance(model, ensemble.HistGradientBoostingRegressor | ensemble.HistGradientBoostingClassifier):
        for name in texts:
            both[name] = both[name].astype("string").fillna("missing").astype(object)
    features, rest = both.iloc[: len(train)], both.iloc[len(train) :]
    if table.task == "regression":
        return model.fit(features, train[table.label]).predict(rest), []
    model.fit(features, train[table.label].astype(str))
    probabilities = model.predict_proba(rest)
    return probabilities[:, 1] if table.task == "binary" else probabilities, list(model.classes_)


def score(task: str, truth: pd.Series, predictions: Any, classes: list[str]) -> float:
    """Gives the metric of the task."""
    if task == "binary":
        return float(metrics.roc_auc_score(truth.astype(str) == classes[1], predictions))
    if task == "multiclass":
        return float(metrics.log_loss(truth.astype(str), np.clip(predictions, 1e-7, 1), labels=classes))
    return float(metrics.root_mean_squared_error(truth, predictions))


if __name__ == "__main__":
    main()
