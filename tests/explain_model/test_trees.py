"""Explaining tree ensembles by their own structure, with boosters that are fitted here."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import scipy.special

from components.errors import InputError
from components.explain_model import trees
from components.explain_model.contributions import Contributions, require_sums
from components.explain_model.material import Material
from components.features import Feature
from components.model_spec import ModelInput, ModelSpec, outputs_of
from components.models.examples import read_examples
from components.models.packing import Packing
from components.rows import Arrays
from components.shapley import Enumeration
from components.transform_graph import TransformGraph
from tests.train_model.projects import arrays_of, project, read_split

KINDS = ("binary", "multiclass", "regression")
OBJECTIVES = {"binary": "binary", "multiclass": "multiclass", "regression": "regression"}


class Forest:
    """A booster on the transformed rows of a test project, and what it predicts."""

    def __init__(self, kind: str, folder: Path, **parameters: Any) -> None:
        self.kind, self.folder = kind, folder
        self.graph = TransformGraph(project(kind).transform_graph)
        packing = Packing(self.graph.spec)
        examples = read_examples(project(kind).transformed, packing, self.graph.spec.label)
        matrix = np.concatenate([examples.numbers, examples.categories], axis=1)
        numbers = packing.number_columns
        self.scale = (1000.0, 50.0) if kind == "regression" else (0.0, 1.0)
        labels = (examples.labels - self.scale[0]) / self.scale[1]
        settings = {"objective": OBJECTIVES[kind], "verbose": -1, "num_threads": 1, "min_data_in_leaf": 5}
        if kind == "multiclass":
            settings["num_class"] = 3
        data = lightgbm.Dataset(matrix, labels, categorical_feature=list(range(numbers, matrix.shape[1])))
        booster = lightgbm.train(settings | parameters, data, num_boost_round=20)
        folder.mkdir(parents=True, exist_ok=True)
        booster.save_model(folder / trees.TREES)
        self.ensemble = trees.Ensemble(folder, project(kind).transform_graph)

    @property
    def spec(self) -> ModelSpec:
        label = self.graph.spec.label
        inputs = [ModelInput(name=i.name, tensor=i.name, dtype=i.dtype, required=False) for i in self.graph.spec.inputs]
        return ModelSpec(
            inputs=inputs, outputs=outputs_of(label), label=label, weights_digest="0", train_rows=1, libraries={}
        )

    def predict(self, rows: Arrays, slope: float = 1.0, offset: float = 0.0) -> np.ndarray[Any, Any]:
        """As the exported model would, in float32."""
        margins = slope * self.ensemble.margins(self.ensemble.features(rows)) + offset
        if self.kind == "binary":
            return scipy.special.expit(margins).astype("float32").astype(float)
        if self.kind == "regression":
            return (margins * self.scale[1] + self.scale[0]).astype("float32").astype(float)
        return scipy.special.softmax(margins, axis=1).astype("float32").astype(float)

    def material(self, **calibration: float) -> Material:
        rows = arrays_of(read_split(project(self.kind).examples, "eval"), self.kind)
        rows = {i.name: rows[i.name] for i in self.spec.inputs}
        return Material(
            split="eval",
            rows=300,
            judged=rows,
            positions=np.arange(300),
            scores=self.predict(rows, **calibration),
            labels=np.zeros(300),
            explained=np.arange(0, 300, 7),
            background=rows,
            background_split="train",
            chosen=self.predict(rows, **calibration).argmax(1),
        )

    def explain(self, material: Material) -> Contributions:
        return trees.shap_values(self.folder, project(self.kind).transform_graph, material, self.spec)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("calibration", [{}, {"slope": 0.4}, {"slope": 3.0, "offset": 0.5}])
def test_contributions_add_up_to_the_model_s_prediction(
    kind: str, calibration: dict[str, float], tmp_path: Path
) -> None:
    forest = Forest(kind, tmp_path)
    found = forest.explain(forest.material(**({} if kind == "regression" else calibration)))
    require_sums(found)
    assert found.features == ["amount", "visits", "trip km", "colour"]
    assert np.abs(found.shares).min(0).max() > 0
    assert np.ptp(found.references) == 0 or kind == "multiclass"


def test_shares_of_stumps_are_what_each_feature_adds(tmp_path: Path) -> None:
    forest = Forest("regression", tmp_path, num_leaves=2)
    material = forest.material()
    found = forest.explain(material)
    # Each tree has one feature, so a feature's share is what it changes when it alone takes the row's value.
    rows = material.explained_rows
    for feature, name in enumerate(found.features):
        alone = {other: np.repeat(values[:1], len(values)) for other, values in rows.items()} | {name: rows[name]}
        predicted = forest.predict(alone)[:, 0]
        np.testing.assert_allclose(
            found.shares[:, feature] - found.shares[0, feature], predicted - predicted[0], atol=1e-3
        )


def test_the_sum_over_a_row_s_features_is_what_lightgbm_says(tmp_path: Path) -> None:
    forest = Forest("regression", tmp_path)
    material = forest.material()
    found = forest.explain(material)
    by_feature, means = forest.ensemble.shares(forest.ensemble.features(material.explained_rows))
    wanted = {name: np.zeros(len(found.values)) for name in found.features}
    for column, names in enumerate(forest.ensemble.columns_of):
        wanted[names[0]] += by_feature[:, 0, column] * forest.scale[1]
    for feature, name in enumerate(found.features):
        np.testing.assert_allclose(found.shares[:, feature], wanted[name], rtol=1e-4, atol=1e-3)
    assert found.references[0] == pytest.approx(means[0] * 50 + 1000, rel=1e-5)


def test_a_cross_counts_in_equal_parts_for_its_columns() -> None:
    weights = trees._weights([["a"], ["a", "b"], ["c"]], ["a", "b", "c"])
    np.testing.assert_array_equal(weights, [[1, 0, 0], [0.5, 0.5, 0], [0, 0, 1]])


@pytest.mark.parametrize("start", [-3.0, 0.0, 40.0])
def test_shares_through_a_link_keep_signs_and_sums(start: float) -> None:
    shares = np.random.default_rng(3).normal(0, 5, (200, 6))
    shares[0] = [1, -1, 2, -2, 3, -3]
    shares[1] = 0
    found, references = trees.Link("binary").through(shares[:, None], np.array([start]), np.zeros(200, int))
    ends = scipy.special.expit(start + shares.sum(1))
    np.testing.assert_allclose(references + found.sum(1), ends, atol=1e-9)
    assert (found * shares >= 0).all()
    assert np.isfinite(found).all()


@pytest.mark.parametrize("size", [0.1, 3, 100])
def test_two_classes_are_explained_alike_by_both_links(size: float) -> None:
    generator = np.random.default_rng(3)
    shares = generator.normal(0, size, (50, 5))
    both = np.stack([np.zeros_like(shares), shares], axis=1)
    for wanted_class in (0, 1):
        found, references = trees.Link("multiclass").through(both, np.array([0.0, -1.0]), np.full(50, wanted_class))
        alone, reference = trees.Link("binary").through(shares[:, None], np.array([-1.0]), np.zeros(50, int))
        sign = 1 if wanted_class else -1
        np.testing.assert_allclose(found, sign * alone, atol=2e-3)
        np.testing.assert_allclose(references, reference if wanted_class else 1 - reference)
        ends = scipy.special.softmax(np.array([0, -1]) + both.sum(2), axis=1)[:, wanted_class]
        np.testing.assert_allclose(references + found.sum(1), ends, atol=1e-9)


def test_a_curve_of_calibration_is_left_to_sampling(tmp_path: Path) -> None:
    forest = Forest("binary", tmp_path)
    material = forest.material()
    with pytest.raises(trees.LinkError):
        forest.explain(replace(material, scores=material.scores**3))


def test_trees_of_another_model_are_refused(tmp_path: Path) -> None:
    forest, other = Forest("binary", tmp_path / "one"), Forest("binary", tmp_path / "two", num_leaves=3, max_depth=2)
    with pytest.raises(InputError, match=r"trees.txt' does not give the predictions of the model beside it"):
        other.explain(forest.material())


def test_trees_of_other_features_are_refused(tmp_path: Path) -> None:
    forest = Forest("binary", tmp_path)
    data = lightgbm.Dataset(np.random.default_rng(3).normal(size=(100, 9)), np.arange(100) % 2)
    lightgbm.train({"verbose": -1, "objective": "binary"}, data, 2).save_model(tmp_path / trees.TREES)
    with pytest.raises(InputError, match="see 9 features, transform graph"):
        forest.explain(forest.material())


def test_damaged_trees_are_refused(tmp_path: Path) -> None:
    forest = Forest("binary", tmp_path)
    (tmp_path / trees.TREES).write_text("tree\nversion=v4\n")
    with pytest.raises(InputError, match="is damaged"):
        forest.explain(forest.material())


def test_what_cannot_be_explained_by_trees_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not trees.can_explain(tmp_path, "graph")
    Forest("binary", tmp_path)
    assert not trees.can_explain(tmp_path, "")
    assert "no transform_graph is given" in capsys.readouterr().out
    assert trees.can_explain(tmp_path, str(project("binary").transform_graph))
    spec = TransformGraph(project("binary").transform_graph).spec
    (tmp_path / "graph").mkdir()
    unknown = spec.model_copy(update={"features": [Feature(name="theirs", kind="number")]})
    (tmp_path / "graph" / "features.json").write_text(unknown.model_dump_json())
    assert not trees.can_explain(tmp_path, str(tmp_path / "graph"))
    assert "feature 'theirs'" in capsys.readouterr().out


def test_a_model_that_says_one_thing_has_no_contributions() -> None:
    link = trees.find_link(np.zeros((5, 1)), np.full((5, 1), 0.25), "binary", Path("model"))
    assert link.slope == 1
    assert link(np.zeros((1, 1)))[0, 0] == pytest.approx(0.25)


@pytest.mark.parametrize(("kind", "outputs"), [("binary", 1), ("multiclass", 3)])
@pytest.mark.parametrize("slope", [1.0, 0.6])
def test_a_forest_s_sums_are_shares(kind: str, outputs: int, slope: float) -> None:
    generator = np.random.default_rng(3)
    start = np.array([0.2, 0.3, 0.5])[:outputs]
    shares = generator.normal(0, 0.02, (300, outputs, 4))
    margins = start + shares.sum(2)
    made = trees.Link(kind, of_shares=True, slope=slope, offset=0.3 if kind == "binary" and slope != 1 else 0.0)
    scores = made(margins).astype("float32").astype(float)
    link = trees.find_link(margins, scores, kind, Path("model"))
    assert link.of_shares
    assert link.slope == pytest.approx(slope, rel=1e-4)
    classes = scores.argmax(1)
    found, references = link.through(shares, start, classes)
    np.testing.assert_allclose(references + found.sum(1), scores[np.arange(300), classes], atol=1e-5)
    if kind == "binary" and slope == 1:
        np.testing.assert_allclose(found, shares[:, 0], rtol=1e-2, atol=1e-5)


def test_many_games_at_once_are_those_games() -> None:
    values = np.random.default_rng(3).normal(size=(16, 7))
    game = Enumeration(4)
    together = game.shares(values)
    for column in range(7):
        np.testing.assert_allclose(together[:, column], game.shares(values[:, column]))
