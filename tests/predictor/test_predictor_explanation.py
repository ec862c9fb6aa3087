"""Explanations: right by the definition of Shapley values, and served as predictions are."""

import asyncio
import itertools
import math
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_metadata.proto.v0 import statistics_pb2

from components.features import Label
from components.model_spec import ModelInput, ModelSpec, outputs_of
from components.predictor.explanation import MOST_ENUMERATED, Enumeration, Explainer, Explanation, Sample
from components.predictor.faults import RequestError
from components.rows import Arrays
from tests.predictor import running
from tests.predictor.conftest import instances
from tests.predictor.running import RunningServer, wait_for

EXPLAIN = "/v1/models/toy:explain"
ROW = {"trip km": 2.5, "amount": 100.0, "visits": 3, "colour": "red"}
TYPICAL = {"trip km": 4.0, "amount": 95.5, "colour": "green"}  # visits: no typical value, so missing in the reference
NUMBERS = {
    "binary": "probability",
    "multiclass": "probabilities",
    "regression": "value",
    "anomaly_detection": "anomaly_score",
    "clustering": "distances",
}

# ----------------------------------------------------------------------------------------------- the arithmetic


def by_definition(value: Callable[[frozenset[int]], float], players: int) -> list[float]:
    """Over every order of the players, what each adds when it joins."""
    shares = [0.0] * players
    for order in itertools.permutations(range(players)):
        joined: frozenset[int] = frozenset()
        for player in order:
            shares[player] += value(joined | {player}) - value(joined)
            joined |= {player}
    return [share / math.factorial(players) for share in shares]


@st.composite
def games(draw: st.DrawFn) -> tuple[int, np.ndarray[Any, Any]]:
    """A number of players, and a value for each of their coalitions."""
    players = draw(st.integers(0, 6))
    value = st.floats(-1e6, 1e6, width=32)
    return players, np.array(draw(st.lists(value, min_size=2**players, max_size=2**players)))


@given(games())
def test_enumeration_is_the_definition(game: tuple[int, np.ndarray[Any, Any]]) -> None:
    players, table = game
    enumeration = Enumeration(players)
    bits = enumeration.coalitions @ 2 ** np.arange(players)
    wanted = by_definition(lambda joined: float(table[sum(2**player for player in joined)]), players)
    np.testing.assert_allclose(enumeration.shares(table[bits]), wanted, rtol=1e-9, atol=1e-6)


@given(st.integers(1, 12), st.integers(1, 10), st.integers(0, 2**32 - 1))
def test_shares_of_a_sample_add_up(players: int, pairs: int, seed: int) -> None:
    sample = Sample(players, 2 * pairs)
    values = np.random.default_rng(seed).normal(size=len(sample.coalitions))
    assert not sample.coalitions[0].any()
    assert sample.coalitions[-1].all()
    assert math.isclose(sample.shares(values).sum(), values[-1] - values[0], abs_tol=1e-9)


@given(st.integers(1, 15), st.integers(0, 2**32 - 1))
def test_an_order_and_its_reverse_are_exact_where_features_act_in_pairs(players: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    alone, together = generator.normal(size=players), np.triu(generator.normal(size=(players, players)), 1)
    sample = Sample(players, 2)
    joined = sample.coalitions.astype(float)
    values = joined @ alone + ((joined @ together) * joined).sum(1)
    np.testing.assert_allclose(sample.shares(values), alone + (together + together.T).sum(1) / 2, atol=1e-9)


def test_a_sample_comes_close_to_the_enumeration() -> None:
    players = 8
    weights = np.random.default_rng(5).normal(size=players)

    def value(joined: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return 1 / (1 + np.exp(-(joined @ weights)))

    enumeration, sample = Enumeration(players), Sample(players, 64)
    exact = enumeration.shares(value(enumeration.coalitions))
    np.testing.assert_allclose(sample.shares(value(sample.coalitions)), exact, atol=0.02 * np.abs(exact).max())


# ------------------------------------------------------------------------------------------------- one model


class Toy:
    """A function of floats as a model; keeps how many rows each call had."""

    def __init__(self, names: list[str], function: Callable[..., Any], max_batch_rows: int = 1024) -> None:
        inputs = [ModelInput(name=name, tensor=name, dtype="float32", required=False) for name in names]
        label = Label(name="y", kind="regression")
        self.spec = ModelSpec(
            inputs=inputs, outputs=outputs_of(label), label=label, weights_digest="0", train_rows=1, libraries={}
        )
        self.calls: list[int] = []
        self._names = names
        self._function = function
        self._max_batch_rows = max_batch_rows

    async def predict(self, arrays: Arrays, rows: int) -> Arrays:
        self.calls.append(rows)
        return {"value": self._function(*(arrays[name].astype(float) for name in self._names))}

    def explain(self, row: list[float], reference: list[float], permutations: int = 64) -> Explanation:
        def arrays(values: list[float]) -> Arrays:
            return {name: np.array([value], "float32") for name, value in zip(self._names, values, strict=True)}

        explainer = Explainer(self.spec, arrays(reference), self.predict, permutations, self._max_batch_rows)
        return asyncio.run(explainer.explain(arrays(row), 0))


def test_a_function_is_explained_by_its_definition() -> None:
    toy = Toy(["a", "b", "c"], lambda a, b, c: a * b + np.maximum(b, c))
    explanation = toy.explain([2, 3, 5], [1, 1, 0])

    def value(joined: frozenset[int]) -> float:
        a, b, c = (given if player in joined else usual for player, given, usual in ((0, 2, 1), (1, 3, 1), (2, 5, 0)))
        return a * b + max(b, c)

    wanted = by_definition(value, 3)
    assert explanation.exact
    assert [explanation.contributions[name] for name in "abc"] == pytest.approx(wanted)
    assert (explanation.value, explanation.reference) == (11, 2)
    assert list(explanation.contributions) == sorted("abc", key=lambda name: -abs(wanted["abc".index(name)]))


def test_features_with_the_reference_s_value_have_no_share_and_cost_nothing() -> None:
    toy = Toy([f"f{index}" for index in range(30)], lambda *values: np.nansum(values, axis=0))
    explanation = toy.explain([5.0, 7.0, *[math.nan] * 28], [1.0, 1.0, *[math.nan] * 28])
    assert toy.calls == [4]
    assert explanation.exact
    assert explanation.contributions == {"f1": 6.0, "f0": 4.0} | {f"f{index}": 0.0 for index in range(2, 30)}


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.floats(-10, 10, width=32)] * 2), min_size=1, max_size=12), st.integers(1, 300))
def test_shares_add_up_to_the_difference(values: list[tuple[float, float]], max_batch_rows: int) -> None:
    names = [f"f{index}" for index in range(len(values))]
    toy = Toy(
        names, lambda *columns: np.tanh(np.sum(columns, axis=0)) + np.sin(np.prod(columns, axis=0)), max_batch_rows
    )
    explanation = toy.explain([row for row, _ in values], [usual for _, usual in values], permutations=6)
    difference = explanation.value - explanation.reference
    assert math.isclose(sum(explanation.contributions.values()), difference, rel_tol=1e-9, abs_tol=1e-9)
    assert explanation.contributions.keys() == set(names)
    assert max(toy.calls) <= max_batch_rows
    assert explanation == toy.explain([row for row, _ in values], [usual for _, usual in values], permutations=6)


def test_many_features_are_sampled() -> None:
    names = [f"f{index}" for index in range(MOST_ENUMERATED + 1)]
    toy = Toy(names, lambda *values: np.sum(values, axis=0), max_batch_rows=100)
    explanation = toy.explain([float(index) for index in range(1, 10)], [0.0] * 9, permutations=64)
    assert not explanation.exact
    assert sum(toy.calls) == 64 * 8 + 2
    assert list(explanation.contributions) == names[::-1]
    assert list(explanation.contributions.values()) == pytest.approx(range(9, 0, -1))


@pytest.mark.parametrize(("row", "says"), [([-4.0, 1.0], "it;"), ([-1.0, 9.0], "a mix of it and the reference")])
def test_a_model_without_a_finite_answer_cannot_be_explained(row: list[float], says: str) -> None:
    toy = Toy(["a", "b"], lambda a, b: np.sqrt(np.where(a + b < 0, np.nan, a + b)))
    with pytest.raises(RequestError, match=f"row 0: the model gives no finite value for {says}"):
        toy.explain(row, [0.5, 0.5])


# ------------------------------------------------------------------------------------------------- the server


def explain(server: RunningServer, rows: Any) -> httpx.Response:
    return server.client.post(EXPLAIN, json={"instances": rows})


@pytest.fixture(scope="module", params=list(NUMBERS))
def task(
    models: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[tuple[str, RunningServer]]:
    """A server of a model that has statistics, and so a typical row."""
    version = tmp_path_factory.mktemp("published") / request.param
    shutil.copytree(models / request.param, version)
    statistics = statistics_pb2.DatasetFeatureStatisticsList()
    dataset = statistics.datasets.add()
    for name, value in TYPICAL.items():
        feature = dataset.features.add()
        feature.path.step.append(name)
        if isinstance(value, float):
            feature.num_stats.median = value
        else:
            feature.string_stats.top_values.add().value = value
    (version / "statistics").mkdir()
    (version / "statistics" / "train.pb").write_bytes(statistics.SerializeToString())
    with running.serving(version) as server:
        yield request.param, server


def explained_value(prediction: dict[str, Any], explanation: dict[str, Any]) -> float:
    value = prediction[explanation["output"]]
    best = min if explanation["output"] == "distances" else max
    return float(best(value) if isinstance(value, list) else value)


def test_an_explanation_adds_up_to_the_prediction(task: tuple[str, RunningServer], models: Path) -> None:
    kind, server = task
    rows = instances(models, kind)[:20]
    assert any(None in row.values() for row in rows)
    answer = explain(server, rows)
    assert answer.status_code == 200, answer.text
    predictions = server.rows(rows).json()["predictions"]
    explanations = answer.json()["explanations"]
    for explanation, prediction in zip(explanations, predictions, strict=True):
        assert explanation["output"] == NUMBERS[kind]
        assert explanation.get("class") == {"binary": "1", "regression": None}.get(kind, prediction.get("class"))
        assert explanation.get("cluster") == prediction.get("cluster")
        assert explanation["exact"]
        assert explanation["prediction"].keys() == prediction.keys()
        assert explanation["value"] == pytest.approx(explained_value(prediction, explanation), rel=1e-5)
        assert explanation["value"] == explained_value(explanation["prediction"], explanation)
        shares = list(explanation["contributions"].values())
        assert math.isclose(explanation["reference"] + sum(shares), explanation["value"], rel_tol=1e-5, abs_tol=1e-6), (
            explanation
        )
        assert shares == sorted(shares, key=abs, reverse=True)
        assert explanation["contributions"].keys() == ROW.keys()
    if kind == "multiclass":
        assert len({explanation["class"] for explanation in explanations}) > 1


def test_the_reference_is_the_typical_row(task: tuple[str, RunningServer]) -> None:
    kind, server = task
    answer = explain(server, [TYPICAL, TYPICAL | {"visits": 9}]).json()
    assert answer["reference"] == TYPICAL | {"visits": None}
    typical, other = answer["explanations"]
    assert set(typical["contributions"].values()) == {0.0}
    assert typical["reference"] == typical["value"]
    assert [name for name, share in other["contributions"].items() if share] == ["visits"]
    if kind not in ("multiclass", "clustering"):  # of another class, the reference is another number
        assert other["reference"] == pytest.approx(typical["value"], rel=1e-5)


def test_a_row_is_explained_alike_each_time(task: tuple[str, RunningServer]) -> None:
    _, server = task
    one = explain(server, [ROW]).json()["explanations"][0]
    assert explain(server, [ROW]).json()["explanations"][0] == one
    assert explain(server, [TYPICAL, ROW, ROW]).json()["explanations"][1:] == [one, one]


def test_shares_are_those_of_the_model_s_own_predictions(task: tuple[str, RunningServer]) -> None:
    _, server = task
    explanation = explain(server, [ROW]).json()["explanations"][0]
    names = list(ROW)
    coalitions = [set(some) for size in range(5) for some in itertools.combinations(range(4), size)]
    usual = TYPICAL | {"visits": None}
    rows = [{name: (ROW if index in some else usual)[name] for index, name in enumerate(names)} for some in coalitions]
    predictions = server.rows(rows).json()["predictions"]

    column = int(np.argmax(predictions[-1].get("probabilities", 0)))

    def value(joined: frozenset[int]) -> float:
        found = predictions[coalitions.index(set(joined))][explanation["output"]]
        return float(found[column] if isinstance(found, list) else found)

    wanted = by_definition(value, 4)
    got = [explanation["contributions"][name] for name in names]
    assert got == pytest.approx(wanted, rel=1e-3, abs=1e-3 * max(map(abs, wanted)))


def test_faults_are_those_of_a_prediction(server: RunningServer) -> None:
    for rows in ([ROW, {"trip kn": 1}], [ROW, {"trip km": "warm"}], [ROW, {"amount": 1}], [], 7, [ROW, 7]):
        answer = explain(server, rows)
        assert answer.status_code == 400
        assert answer.json() == server.rows(rows).json()
    broken = server.client.post(EXPLAIN, content=b"{")
    assert (broken.status_code, broken.json()) == (
        400,
        server.client.post(EXPLAIN[:-7] + "predict", content=b"{").json(),
    )
    assert server.client.get(EXPLAIN).status_code == 405
    assert server.client.post("/v1/models/other:explain", json={}).status_code == 404


def test_rows_beyond_the_limit_are_refused(models: Path) -> None:
    with running.serving(models / "binary", max_explained_rows=2) as server:
        assert explain(server, [ROW] * 2).status_code == 200
        refused = explain(server, [ROW] * 3)
        assert refused.status_code == 400
        assert "3 rows (allowed: 2)" in refused.json()["error"]
        assert server.rows([ROW] * 3).status_code == 200


def test_explanation_can_be_switched_off(models: Path) -> None:
    with running.serving(models / "binary", max_explained_rows=0) as server:
        refused = explain(server, [ROW])
        assert refused.status_code == 404
        assert refused.json()["error"] == (
            "explanation is switched off; start the server with max_explained_rows above 0"
        )
        assert server.rows([ROW]).status_code == 200


def test_explanations_are_counted_apart_and_not_logged(models: Path, tmp_path: Path) -> None:
    with running.serving(models / "binary", log_uri=tmp_path / "log") as server:
        server.rows([ROW])
        wait_for(lambda: server.metrics()["lockgate_predictions_count"] == 1)
        before = server.metrics()
        assert explain(server, [{"trip km": 1, "colour": "Bitcoin"}] * 3).status_code == 200
        assert explain(server, [{}]).status_code == 400
        server.rows([ROW])
        wait_for(lambda: server.metrics()["lockgate_predictions_count"] == 2)
        after = server.metrics()
        assert server.stop() == 0
    counted = {name for name, value in after.items() if name.startswith("lockgate_") and value != before.get(name, 0)}
    of_explanations = {name for name in counted if "expla" in name}
    assert after['lockgate_explanations_total{code="200"}'] == 1
    assert after['lockgate_explanations_total{code="400"}'] == 1
    assert after["lockgate_explained_rows_total"] == 3
    assert after["lockgate_explanation_seconds_count"] == 2
    assert after['lockgate_requests_total{code="200",protocol="v1"}'] == 2
    assert after["lockgate_batch_rows_sum"] == 2
    assert not [name for name in counted - of_explanations if "missing" in name or "vocabulary" in name]
    logged = [pq.read_table(part) for part in (tmp_path / "log").rglob("*.parquet")]
    assert sum(table.num_rows for table in logged) == 2


def test_predictions_are_answered_while_many_explain_and_too_many_are_refused(models: Path) -> None:
    with running.serving(models / "binary", max_explained_rows=1000) as server:
        codes: list[int] = []

        def ask() -> None:
            with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
                answer = client.post(EXPLAIN, json={"instances": [ROW] * 100})
                assert answer.status_code == 200 or answer.headers["retry-after"] == "1"
                codes.append(answer.status_code)

        threads = [threading.Thread(target=ask) for _ in range(40)]
        for thread in threads:
            thread.start()
        wait_for(lambda: server.metrics()["lockgate_in_flight_requests"] > 10)
        assert server.rows([ROW]).status_code == 200
        assert len(codes) < 40, "the prediction waited for all explanations"
        for thread in threads:
            thread.join()
        assert set(codes) == {200, 503}
        assert server.metrics()["lockgate_in_flight_requests"] == 0
