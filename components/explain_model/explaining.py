"""Explaining the predictions of a model: from the datasets to the table and the report."""

import hashlib
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts import Manifest, read_manifest, whole, write_manifest, write_whole
from components.explain_model import sampling, trees, weak_slices
from components.explain_model.contributions import Contributions, of_classes, require_sums
from components.explain_model.material import Explained, Material, losses, read_material, taken
from components.explain_model.page import page
from components.model_spec import ModelSpec, classes_of
from components.reason_codes import reason_codes
from components.settings import Explanation, Task


def explain(
    model: str,
    transform_graph: str,
    schema: str,
    examples: str,
    predictions: str,
    task: Task,
    explanation: Explanation,
    explanations: str,
    report: str,
) -> dict[str, float]:
    """Writes the contributions of a sample of rows, and the report; the arguments are those of the component.

    Returns:
        Scalars: rows, features, compared_rows, largest_gap (how far contributions are from adding up),
        weak_slices, seconds.

    Raises:
        InputError: no model, or predictions of another model or of other rows.
        DataRejectedError: no row was predicted, or contributions do not add up to the prediction.
    """
    started = time.monotonic()
    explained = Explained(Path(model))
    described = Path(schema) if schema else None
    material = read_material(explained, Path(examples), Path(predictions), described, task, explanation)
    contributions = _contributions(explained, material, Path(model), transform_graph, explanation)
    require_sums(contributions)
    weak = _weak_slices(material, explained.spec, explanation)
    with whole(explanations) as folder:
        (folder / material.split).mkdir()
        table = _table(material, contributions, explained.spec)
        pq.write_table(table, folder / material.split / "part-00000.parquet")
        source = f"{read_manifest(Path(predictions)).digest} {explanation.model_dump_json()}"
        digest = hashlib.sha256(source.encode()).hexdigest()
        write_manifest(folder, Manifest(splits={material.split: table.num_rows}, digest=digest))
    write_whole(report, page(material, contributions, weak, explained.spec, explanation))
    figures = {
        "rows": float(table.num_rows),
        "features": float(len(contributions.features)),
        "compared_rows": float(contributions.compared_rows),
        "largest_gap": float(np.abs(contributions.gaps).max()),
        "weak_slices": float(len(weak.slices)),
        "seconds": round(time.monotonic() - started, 1),
    }
    print(
        f"explain_model: {material.split}: {table.num_rows:,} rows explained in {figures['seconds']:g} s, "
        f"{len(weak.slices)} weak slices",
        flush=True,
    )
    return figures


def _contributions(
    explained: Explained, material: Material, model: Path, transform_graph: str, explanation: Explanation
) -> Contributions:
    rows, background = material.explained_rows, material.background
    chosen = material.chosen[material.explained]
    if explanation.method == "lime":
        return sampling.lime(explained.predict, rows, chosen, background, explanation.seed)
    if explanation.method == "auto" and trees.can_explain(model, transform_graph):
        try:
            return trees.shap_values(model, Path(transform_graph), material, explained.spec)
        except trees.LinkError as error:
            print(f"explain_model: {error}, so the trees are explained as any other model", flush=True)
    return sampling.shapley_values(
        explained.predict, rows, chosen, background, explanation.max_seconds, explanation.seed
    )


def _weak_slices(material: Material, spec: ModelSpec, explanation: Explanation) -> weak_slices.Search:
    labelled = ~np.isnan(material.labels)
    # Without any label, the scores or distances themselves say where rows are unusual.
    known = np.flatnonzero(labelled | (not spec.label.is_learned and not labelled.any()))
    labels, scores = material.labels[known], material.scores[known]
    several = spec.label.kind in ("multiclass", "clustering") or not labelled.any()
    return weak_slices.find(
        taken(material.judged, known),
        losses(labels, scores, spec.label.kind, spec.decision_threshold),
        None if several else scores[:, 0],
        None if several else labels,
        explanation.min_slice_rows,
        explanation.seed,
        material.times,
    )


def _table(material: Material, contributions: Contributions, spec: ModelSpec) -> pa.Table:
    """A row an explained row: where it is, what was predicted, and all contributions, the largest first."""
    rows = material.explained
    columns = {
        "row": pa.array(material.positions[rows]),
        "prediction": pa.array(contributions.values),
        "reference": pa.array(contributions.references),
        "contributions": reason_codes(material.explained_rows, contributions.shares, len(contributions.features)),
    }
    if material.scores.shape[1] > 1:
        chosen = material.chosen[rows]
        names = classes_of(spec)
        columns["class" if spec.label.kind == "multiclass" else "cluster"] = pa.array([names[one] for one in chosen])
        assert np.array_equal(of_classes(material.scores[rows], chosen), contributions.values)
    return pa.table(columns)
