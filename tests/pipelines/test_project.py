"""Reading a project. Needs: the authoring environment."""

import re
from pathlib import Path

import pytest

from components.errors import InputError
from pipelines.project import ProjectError, load_project

VALID = """\
name: shop
data:
  source: data/{YYYY}-{MM}.csv
  split:
    by: hash
    key: [customer]
schema: schema.pbtxt
task:
  type: binary
  label: bought
features:
  numeric:
    - columns: [price]
  categorical:
    - columns: [city]
  datetime:
    - columns: [visited]
      parts: [hour]
evaluation:
  slices: [[city]]
"""

SCHEMA = """\
feature { name: "customer" type: BYTES }
feature { name: "price" type: FLOAT }
feature { name: "city" type: BYTES }
feature { name: "visited" type: INT time_domain { integer_format: UNIX_SECONDS } }
feature { name: "bought" type: INT }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pipeline.yaml").write_text(VALID)
    (tmp_path / "schema.pbtxt").write_text(SCHEMA)
    return tmp_path


def edit(folder: Path, old: str, new: str) -> None:
    text = (folder / "pipeline.yaml").read_text()
    assert old in text
    (folder / "pipeline.yaml").write_text(text.replace(old, new, 1))


def test_a_valid_project_brings_its_files_along(folder: Path) -> None:
    project = load_project(folder)
    assert project.settings.data.split.by == "hash"
    assert project.schema_text == SCHEMA
    assert project.user_module == ""
    assert project.resolve("data/x.csv") == str(folder / "data" / "x.csv")
    assert project.resolve("gs://bucket/x") == "gs://bucket/x"
    assert project.prediction_columns == ["bought", "city"]


@pytest.mark.parametrize(
    ("task", "kinds"),
    [
        ("{type: binary, label: bought}", ["linear", "mlp", "boosted_trees"]),
        ("{type: anomaly_detection, label: bought}", ["isolation_forest", "autoencoder"]),
        ("{type: anomaly_detection}", ["isolation_forest"]),
        ("{type: clustering}", ["k_means"] * 9),
    ],
)
def test_models_that_are_for_the_task_compete(folder: Path, task: str, kinds: list[str]) -> None:
    project = load_project(folder, [f"task={task}"])
    assert [candidate.kind for candidate in project.settings.selection.candidates] == kinds
    assert ("bought" in project.prediction_columns) == ("label" in task)


def test_an_open_number_of_clusters_is_one_candidate_each(folder: Path) -> None:
    model = "model={kind: k_means, max_clusters: 4, starts: 2}"
    candidates = load_project(folder, ["task={type: clustering}", model]).settings.selection.candidates
    assert [(one.clusters, one.starts) for one in candidates] == [(2, 2), (3, 2), (4, 2)]  # type: ignore[union-attr]


def test_an_override_takes_the_place_of_the_file(folder: Path) -> None:
    settings = load_project(folder, ["training.epochs=3", "data.split.key=[city]", "model={kind: linear}"]).settings
    assert settings.training.epochs == 3
    assert settings.data.split.key == ["city"]  # type: ignore[union-attr]
    assert settings.model.kind == "linear"


@pytest.mark.parametrize("override", ["training.epochs", "name.x=3", "=3"])
def test_a_bad_override_says_so(folder: Path, override: str) -> None:
    with pytest.raises(InputError):
        load_project(folder, [override])


def windowed(features: str, key: str = "[customer]") -> str:
    return f"window_features:\n  {{time: visited, key: {key},\n  features: [{features}]}}\nfeatures:"


# What was changed in the valid file, into what, and the one line that comes of it.
# ruff: noqa: E501
FAULTS = [
    ("name: shop", "name: Shop!", "1:1: name: string should match pattern"),
    ("name: shop\n", "", "1:1: name: missing; add it"),
    ("name: shop", "nam: shop", "1:1: nam: unknown key; did you mean 'name'?"),
    ("  source:", "  sorce:", "3:3: data.sorce: unknown key; did you mean 'source'?"),
    ("by: hash", "by: hahs", "5:5: data.split.by: 'hahs' is not one of 'hash', 'time', 'column'; did you mean 'hash'?"),
    ("    by: hash\n", "", "4:3: data.split.by: missing; add it"),
    ("key: [customer]", "key: []", "6:5: data.split.key: list should have at least 1 item"),
    ("key: [customer]", "eval_fraction: 1.5\n    key: [customer]", "6:5: data.split.eval_fraction: input should be less than 1 (got: 1.5)"),
    ("type: binary", "type: regresion", "9:3: task.type: 'regresion' is not one of"),
    ("[price]", "[price]\n      scale: zscore", "14:7: features.numeric[0].scale: 'zscore' is not one of"),
    ("[city]\n  datetime", "[city]\n      hash_buckets: 9\n      top_k: 3\n  datetime", "15:7: features.categorical[0]: hash_buckets"),
    ("[city]\n  datetime", "[city, city]\n  datetime", "11:1: features: column 'city' is named 2 times"),
    ("parts: [hour]", "parts: [hours]", "18:15: features.datetime[0].parts[0]: 'hours' is not one of"),
    ("source: data/{YYYY}-{MM}.csv", "source: x\n  window: last week", "4:3: data.window: string should match pattern"),
    ("  slices:", "  thresholds: [{metric: auk}]\n  slices:", "20:17: evaluation.thresholds[0].metric: 'auk' is not one of"),
    ("  slices:", "  thresholds: [{metric: auc}]\n  slices:", "20:16: evaluation.thresholds[0]: give min, max or both"),
    ("  slices:", "  thresholds: [{metric: rmse, max: 1}]\n  slices:", "20:17: evaluation.thresholds[0].metric: a binary task has no 'rmse'; use one of auc, "),
    ("  slices:", "  production: {metric: r2}\n  slices:", "20:16: evaluation.production.metric: a binary task has no 'r2'"),
    ("  slices:", "  slice_thresholds: [{metric: auc, min: 0, slices: [[town]]}]\n  slices:", "20:53: evaluation.slice_thresholds[0].slices: [town] is not in evaluation.slices ([city]); add it there"),
    ("  label: bought\n", "", "8:1: task: a binary task learns from a label: name its column as label, or set type to anomaly_detection or clustering"),
    ("type: binary", "type: clustering\n  positive: 1", "8:1: task: a clustering task has no positive value"),
    ("features:", "model: {kind: k_means}\nfeatures:", "11:9: model.kind: a task of type binary has no 'k_means' (that is for clustering); use linear or"),
    ("type: binary\n  label: bought", "type: anomaly_detection\nmodel: {kind: mlp}", "10:9: model.kind: a task of type anomaly_detection has no 'mlp'"),
    ("features:", "tuning: {metric: silhouette}\nfeatures:", "11:10: tuning.metric: a binary task is not compared by 'silhouette'; use one of log_loss"),
    ("features:", "training: {decision: {by: contamination}}\nfeatures:", "11:23: training.decision.by: contamination is for anomaly_detection, not for a binary task"),
    ("features:", "training: {decision: {contamination: 0}}\nfeatures:", "11:23: training.decision.contamination: input should be greater than 0 (got: 0)"),
    ("features:", "training: {decision: {contamination: 0.6}}\nfeatures:", "11:23: training.decision.contamination: input should be less than or equal to 0.5 (got: 0.6)"),
    ("type: binary\n  label: bought", "type: anomaly_detection\ntraining: {decision: {by: max_f1}}", "10:23: training.decision.by: max_f1 needs labels; name task.label, or set it to contamination"),
    ("type: binary\n  label: bought", "type: clustering\ntraining: {calibration: sigmoid}", "10:12: training.calibration: a clustering task learns from no label and gives no probabilities"),
    ("type: binary\n  label: bought", "type: anomaly_detection\ntuning: {candidates: [{kind: isolation_forest}, {kind: autoencoder}]}", "10:10: tuning: without a label nothing tells which anomaly detector is better"),
    ("type: binary\n  label: bought", "type: anomaly_detection\ntuning: {trials: 3}", "10:10: tuning: without a label nothing tells"),
    ("  label: bought", "  label: bought\nmodel: {kind: k_means, clusters: 1}", "11:24: model.clusters: input should be greater than or equal to 2 (got: 1)"),
    ("features:", windowed("{name: n, of: count, window: 1 fortnight}"), "13:35: window_features.features[0].window: string should match"),
    ("features:", windowed("{name: n, of: median, window: 1 day}"), "13:24: window_features.features[0].of: 'median' is not one of"),
    ("features:", windowed("{name: n, of: sum, window: 1 day}"), "13:14: window_features.features[0]: sum is of a column's values; add `column`"),
    ("features:", windowed("{name: n, of: count, column: price, window: 1 day}"), "13:14: window_features.features[0]: count is of events"),
    ("features:", windowed("{name: n, of: count, window: 1 day}, {name: n, of: count, window: 2 days}"), "11:1: window_features: 2 features are called 'n'"),
    ("features:", windowed("{name: city, of: count, key: [city], window: 1 day}"), "11:1: window_features: feature 'city' is called like a column"),
    ("features:", windowed("{name: n, of: count, window: 1 day}", key="[]"), "11:1: window_features: feature 'n' has no key"),
    ("features:", windowed("{name: n, of: sum, column: bought, window: 1 day}"), "13:33: window_features.features[0].column: the label 'bought' is not known when"),
    ("features:", windowed("{name: n, of: sum, column: prize, window: 1 day}"), "13:33: window_features.features[0].column: column 'prize' is not in the schema; did you mean 'price'?"),
    ("features:", windowed("{name: n, of: sum, column: city, window: 1 day}"), "13:33: window_features.features[0].column: column 'city' holds text, of which there is no sum"),
    ("features:", windowed("{name: n, of: count, window: 1 day}", key="[price]"), "12:25: window_features.key[0]: column 'price' is FLOAT, and a key is INT or BYTES"),
    ("features:", windowed("{name: n, of: count, window: 1 day}"), "13:15: window feature 'n' is not in the schema; add feature { name: \"n\" type: INT }"),
    ("label: bought", "label: bougt", "10:3: column 'bougt' is not in the schema; did you mean 'bought'?"),
    ("[price]", "[prize]", "13:17: column 'prize' is not in the schema; did you mean 'price'?"),
    ("[price]", "[price, bought]", "13:24: the label 'bought' cannot be a feature"),
    ("[price]", "[price, customer]", "13:24: column 'customer' holds text (BYTES); list it under categorical"),
    ("[visited]", "[price]", "11:1: features: column 'price' is named 2 times"),
    ("[[city]]", "[[town]]", "20:13: column 'town' is not in the schema"),
    ("key: [customer]", "key: [costumer]", "6:11: column 'costumer' is not in the schema; did you mean 'customer'?"),
    ("schema: schema.pbtxt", "schema: schema.pbtx", "7:1: schema: 'schema.pbtx' is not beside it; did you mean 'schema.pbtxt'?"),
    ("schema: schema.pbtxt", "user_module: mine.py", "7:1: user_module: 'mine.py' is not beside it"),
    ("name: shop", "name: shop\nname: shop", "2:1: key 'name' is given twice; keep one"),
    ("name: shop", "name: [", ""),
    ("name: shop", "\tname: shop", ""),
    ("task:", "training: {epochs: ten}\ntask:", "8:12: training.epochs: input should be a valid integer"),
    ("task:", "training: {epochs: 0}\ntask:", "8:12: training.epochs: input should be greater than 0 (got: 0)"),
    ("task:", "model: {kind: forest}\ntask:", "8:9: model.kind: 'forest' is not one of 'linear', 'mlp', 'wide_and_deep', 'boosted_trees', "),
    ("task:", "model: {kind: mlp, l2: 1}\ntask:", "8:20: model.l2: unknown key; known: kind, hidden_units"),
    ("task:", "? [a, b]\n: 1\ntask:", ""),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), FAULTS)
def test_a_fault_is_named_where_it_is(folder: Path, old: str, new: str, message: str) -> None:
    edit(folder, old, new)
    with pytest.raises(InputError) as caught:
        load_project(folder)
    faults = caught.value.faults if isinstance(caught.value, ProjectError) else [str(caught.value)]
    assert faults[0].startswith(str(folder / "pipeline.yaml"))
    assert "\n" not in faults[0]
    assert any(f"pipeline.yaml:{message}" in fault or not message for fault in faults), faults


def test_every_fault_is_told_at_once(folder: Path) -> None:
    edit(folder, "name: shop", "nam: shop")
    edit(folder, "type: binary", "type: bin")
    with pytest.raises(ProjectError) as caught:
        load_project(folder)
    assert len(caught.value.faults) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no settings in it"),
        (b"- a\n- b\n", "no settings in it"),
        (b"just text", "no settings in it"),
        (b"name: caf\xe9", "not UTF-8 at byte 9"),
        (b"\x00\x01", "pipeline.yaml"),
        (b"PK\x03\x04\xff", "not UTF-8"),
        (b"a: *b", "pipeline.yaml:1:4"),
    ],
)
def test_the_wrong_file_is_told(folder: Path, content: bytes, message: str) -> None:
    (folder / "pipeline.yaml").write_bytes(content)
    with pytest.raises(InputError, match=re.escape(message)):
        load_project(folder)


def test_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no file; give a pipeline"):
        load_project(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"feature { nme: 'x' }", "schema: 1:11"),
        (b"\xff\xfe", "not UTF-8"),
        (b"# " + b"x" * 200_000, "200,002 bytes"),
        (b"# {{$.inputs}}", "which Kubeflow Pipelines would replace"),
    ],
)
def test_a_bad_schema_is_told(folder: Path, content: bytes, message: str) -> None:
    (folder / "schema.pbtxt").write_bytes(content)
    with pytest.raises(InputError, match=re.escape(message)):
        load_project(folder)
