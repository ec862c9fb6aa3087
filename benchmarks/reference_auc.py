"""What scikit-learn's gradient boosting reaches on flights: `python benchmarks/reference_auc.py`.

The columns, the split and the label are those of examples/flights/pipeline.yaml; needs the data that `make data`
gets. Prints the AUC on the eval split of `HistGradientBoostingClassifier` with its default settings, for each of
three seeds.
"""

import sys
import time
from pathlib import Path

import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from components.settings import Features, TimeSplit  # noqa: E402
from pipelines.project import load_project  # noqa: E402

SEEDS = (0, 1, 2)


def main() -> None:
    """Fits and prints."""
    project = load_project(ROOT / "examples" / "flights")
    split, label = project.settings.data.split, project.settings.task.label
    assert isinstance(split, TimeSplit)
    files = sorted((project.folder / "data").glob("*.parquet"))
    if not files:
        raise SystemExit("examples/flights/data holds no spans; run `make data`")
    rows = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    features = _features(rows, project.settings.features)
    is_train = rows[split.column] < pd.Timestamp(split.eval_from)
    print(f"{len(features.columns)} columns: {', '.join(features.columns)}")
    for seed in SEEDS:
        started = time.monotonic()
        model = HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=seed)
        model.fit(features[is_train], rows.loc[is_train, label])
        scores = model.predict_proba(features[~is_train])[:, 1]
        auc = roc_auc_score(rows.loc[~is_train, label], scores)
        print(f"seed {seed}: AUC {auc:.4f}, {time.monotonic() - started:.0f} s to fit and predict", flush=True)


def _features(rows: pd.DataFrame, features: Features) -> pd.DataFrame:
    """Gives the model's columns; trees need no scaling, no crosses and no filled holes."""
    columns = {name: rows[name] for group in features.numeric for name in group.columns}
    columns |= {name: rows[name].astype("category") for group in features.categorical for name in group.columns}
    for group in features.datetime:
        for name in group.columns:
            for part in group.parts:
                columns[f"{name}_{part}"] = getattr(rows[name].dt, "day_of_week" if part == "weekday" else part)
    return pd.DataFrame(columns)


if __name__ == "__main__":
    main()
