"""Small datasets on disk, and the stage run on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts import Manifest, write_manifest
from components.features import FeatureSpec, read_features
from components.settings import Features, Task
from components.transform_data.transformation import transform

TYPES = {"BYTES": pa.string(), "INT": pa.int64(), "FLOAT": pa.float32()}
BINARY = {"type": "binary", "label": "y"}

Columns = Mapping[str, Sequence[Any]]


def schema_text(types: Mapping[str, str]) -> str:
    """Gives a schema in text format.

    Args:
        types: by column, BYTES, INT or FLOAT; then, after a blank, further fields of the feature.
    """
    features = []
    for name, said in types.items():
        kind, _, more = said.partition(" ")
        quoted = name.replace("\\", "\\\\").replace('"', '\\"')
        features.append(f'feature {{ name: "{quoted}" type: {kind} {more} }}')
    return "\n".join(features)


@dataclass
class Outputs:
    """What a run of the stage left."""

    manifest: Manifest
    graph: Path
    transformed: Path

    @property
    def spec(self) -> FeatureSpec:
        return read_features(self.graph)

    def table(self, split: str = "train") -> pa.Table:
        return pq.read_table(self.transformed / split)


class Project:
    """A folder with a dataset and its schema."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.examples = folder / "examples"
        self.schema = folder / "schema"

    def write(self, types: Mapping[str, str], *, train: Columns, eval: Columns | None = None) -> "Project":
        self.schema.mkdir(parents=True, exist_ok=True)
        (self.schema / "schema.pbtxt").write_text(schema_text(types), encoding="utf-8")
        splits = {"train": train, "eval": eval or train}
        fields = pa.schema([(name, TYPES[said.split(" ")[0]]) for name, said in types.items()])
        rows = {}
        for split, columns in splits.items():
            (self.examples / split).mkdir(parents=True, exist_ok=True)
            table = pa.table({name: pa.array(columns[name], fields.field(name).type) for name in types})
            pq.write_table(table, self.examples / split / "part-00000.parquet")
            rows[split] = table.num_rows
        write_manifest(self.examples, Manifest(splits=rows, digest="d1"))
        return self

    def transform(
        self,
        features: Mapping[str, Any] | None = None,
        *,
        task: Mapping[str, Any] = BINARY,
        user_module: str = "",
        analysis_cache: str = "",
        beam_args: Sequence[str] = (),
        name: str = "run",
    ) -> Outputs:
        graph, transformed = self.folder / name / "transform_graph", self.folder / name / "transformed"
        manifest = transform(
            str(self.examples),
            str(self.schema),
            Task.model_validate(task),
            Features.model_validate(features or {}),
            user_module,
            analysis_cache,
            beam_args,
            str(graph),
            str(transformed),
        )
        return Outputs(manifest, graph, transformed)

    def left_behind(self) -> list[str]:
        """Names whatever a failed run left on the disk."""
        run = self.folder / "run"
        return sorted(str(path.relative_to(run)) for path in run.rglob("*")) if run.exists() else []
