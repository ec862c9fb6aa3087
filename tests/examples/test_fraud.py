"""The simulator of examples/fraud: the same rows from one seed, the rates that it promises, and no column that tells.

Needs: the authoring environment.
"""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from components.schema import columns, parse_schema
from pipelines.project import load_project

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "fraud"
sys.path.insert(0, str(EXAMPLE))

from simulator import PATTERN_NAMES, simulate  # noqa: E402
from simulator.frauds import PATTERNS  # noqa: E402
from simulator.payments import gaps  # noqa: E402
from simulator.world import CATEGORIES, CHANNELS  # noqa: E402

CARDS = 300
LATER = ["pattern", "reported_at"]


def frame(rows: Mapping[str, np.ndarray]) -> pd.DataFrame:
    return pd.DataFrame(dict(rows))


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return frame(simulate(CARDS))


# ----------------------------------------------------------------------------------------------------- promises


def test_one_seed_gives_the_same_rows_and_another_others(rows: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(frame(simulate(CARDS)), rows)
    assert not frame(simulate(CARDS, seed=18))["amount"].head(1000).equals(rows["amount"].head(1000))


@settings(max_examples=8, deadline=None)
@given(cards=st.integers(20, 60), seed=st.integers(0, 2**32))
def test_rows_are_whole_in_order_and_of_the_year(cards: int, seed: int) -> None:
    rows = frame(simulate(cards, seed))
    assert not rows.drop(columns="reported_at").isna().any().any()
    assert rows["transaction_time"].is_monotonic_increasing
    assert set(rows["transaction_time"].dt.year) == {2024}
    assert rows["transaction_id"].is_unique
    assert rows["transaction_id"].is_monotonic_increasing
    assert rows["card_id"].nunique() <= cards
    assert (rows["amount"] >= 0.5).all()
    assert (rows["distance_km"] >= 0).all()
    assert set(rows["category"]) <= {one.name for one in CATEGORIES}
    assert set(rows["channel"]) <= set(CHANNELS)
    fraud = rows["fraud"] == 1
    assert (rows["reported_at"].notna() == fraud).all()
    assert ((rows["pattern"] != "") == fraud).all()
    assert (rows["reported_at"] > rows["transaction_time"])[fraud].all()


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.floats(0, 1e5), st.integers(0, 99))
def test_an_incident_begins_at_its_start_and_goes_on(sizes: list[int], mean: float, seed: int) -> None:
    found = gaps(np.random.default_rng(seed), np.array(sizes), mean)
    for part in np.split(found, np.cumsum(sizes)[:-1]):
        assert part[0] == 0
        assert (np.diff(part) > 0).all()


def test_about_four_of_a_thousand_payments_are_fraud(rows: pd.DataFrame) -> None:
    assert 0.003 < rows["fraud"].mean() < 0.005
    by_month = rows.groupby(rows["transaction_time"].dt.month)["fraud"].mean()
    assert by_month.max() < 0.01
    assert by_month.min() > 0.0005


def test_patterns_have_the_shares_of_their_table() -> None:
    assert sum(one.share for one in PATTERNS) == pytest.approx(1)
    shares = frame(simulate(1000))["pattern"].value_counts()
    for one in PATTERNS:
        assert shares[one.name] / shares[list(PATTERN_NAMES)].sum() == pytest.approx(one.share, abs=0.05)


def test_one_pattern_begins_in_summer(rows: pd.DataFrame) -> None:
    first = rows[rows["pattern"] == "contactless_relay"]["transaction_time"].min()
    assert first >= pd.Timestamp("2024-07-01")
    others = rows[rows["fraud"] == 1].groupby("pattern")["transaction_time"].min().drop("contactless_relay")
    assert (others < pd.Timestamp("2024-07-01")).all()


def test_the_world_drifts_and_has_seasons(rows: pd.DataFrame) -> None:
    month = rows["transaction_time"].dt.month
    online = (rows["channel"] == "online").groupby(month).mean()
    assert online[12] > 1.15 * online[1]
    assert (month == 12).sum() > 1.1 * (month == 1).sum()  # both have 31 days
    fashion = rows[rows["category"] == "fashion"]
    weekend = fashion["transaction_time"].dt.day_of_week >= 5
    assert weekend.mean() > 2 / 7
    groceries = rows[rows["category"] == "groceries"].groupby(month)["amount"].median()
    assert groceries[[11, 12]].mean() > groceries[[1, 2]].mean()
    assert (rows["transaction_time"].dt.hour < 5).mean() < 0.06


def test_reports_come_days_or_weeks_later(rows: pd.DataFrame) -> None:
    fraud = rows[rows["fraud"] == 1]
    days = (fraud["reported_at"] - fraud["transaction_time"]).dt.total_seconds() / 86_400
    median = days.groupby(fraud["pattern"]).median()
    assert median["stolen_card"] < 3
    assert median["merchant_taken_over"] > 5
    assert days.max() <= 90


# ---------------------------------------------------------------------------------------- what tells, and what does not


def separation(values: pd.Series, fraud: pd.Series) -> float:
    """Gives the AUC of one column, in whichever direction; of text, by its share of fraud in the half year before."""
    if not pd.api.types.is_numeric_dtype(values):
        first = np.arange(len(values)) < len(values) // 2
        shares = fraud[first].groupby(values[first]).mean()
        values, fraud = values[~first].map(shares).fillna(shares.mean()), fraud[~first]
    positive = fraud.to_numpy() == 1
    ranks = rankdata(values)
    wins = ranks[positive].sum() - positive.sum() * (positive.sum() + 1) / 2
    auc = wins / (positive.sum() * (~positive).sum())
    return float(max(auc, 1 - auc))


def test_no_column_tells_by_itself(rows: pd.DataFrame) -> None:
    telling = rows.drop(columns=["fraud", *LATER, "transaction_time"])
    found = {name: separation(telling[name], rows["fraud"]) for name in telling.columns if name != "transaction_id"}
    found["transaction_id"] = separation(rows["transaction_id"].str[1:].astype(int), rows["fraud"])
    assert {name: auc for name, auc in found.items() if auc > 0.8} == {}


def test_windows_tell_what_single_payments_do_not(rows: pd.DataFrame) -> None:
    by_card = rows.sort_values(["card_id", "transaction_time"], kind="stable")
    counts = by_card.set_index("transaction_time").groupby("card_id")["amount"].rolling("2h").count()
    seen = pd.Series(counts.to_numpy(), index=by_card.index).sort_index()
    for pattern in ("card_testing", "stolen_card", "many_merchants", "contactless_relay"):
        some = rows["pattern"].isin(["", pattern])
        assert separation(seen[some], rows["fraud"][some]) > 0.85, pattern
    some = rows["pattern"].isin(["", "denied"])
    assert separation(seen[some], rows["fraud"][some]) < 0.65


# --------------------------------------------------------------------------------------------------------- files


def prepare(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(EXAMPLE / "prepare_data.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fraud") / "data"
    done = prepare("--output", str(folder), "--cards", "50")
    assert done.returncode == 0, done.stderr
    return folder


def test_spans_have_the_columns_of_the_schema_and_nothing_that_is_known_later(data: Path) -> None:
    computed = load_project(EXAMPLE).settings.window_features
    assert computed
    wanted = set(columns(parse_schema((EXAMPLE / "schema.pbtxt").read_text()))) - set(computed.names)
    for month in range(1, 13):
        table = pq.read_table(data / f"transactions-2024-{month:02d}.parquet")
        assert set(table.column_names) == wanted
        assert set(table.to_pandas()["transaction_time"].dt.month) == {month}


def test_reports_are_beside_the_spans_and_name_every_fraud(data: Path) -> None:
    rows = pd.concat(pd.read_parquet(path) for path in sorted(data.glob("transactions-*.parquet")))
    reports = pd.read_parquet(data / "reports.parquet")
    assert set(reports["transaction_id"]) == set(rows["transaction_id"][rows["fraud"] == 1])
    assert set(reports.columns) == {"transaction_id", *LATER}


def test_other_options_write_other_spans_and_the_same_ones_nothing(data: Path, tmp_path: Path) -> None:
    before = (data / "transactions-2024-01.parquet").read_bytes()
    assert prepare("--output", str(data), "--cards", "50").stdout == ""
    other = tmp_path / "other"
    assert prepare("--output", str(other), "--cards", "50", "--seed", "3").returncode == 0
    assert (other / "transactions-2024-01.parquet").read_bytes() != before
    assert prepare("--output", str(other), "--cards", "50").returncode == 0
    assert (other / "transactions-2024-01.parquet").read_bytes() == before


@pytest.mark.parametrize("options", [("--cards", "3"), ("--seed", "-1")])
def test_options_that_make_no_sense_are_told_in_one_line(options: tuple[str, ...], tmp_path: Path) -> None:
    done = prepare("--output", str(tmp_path / "data"), *options)
    assert done.returncode == 2
    assert done.stderr.startswith("prepare_data: --cards")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()
