"""Whether splits conform to the schema, by TFDV."""

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from components.validate_data.anomalies import Finding
from components.validate_data.statistics import Summary

_TRAINING = "TRAINING"


def check_schema(summary: Summary, schema: schema_pb2.Schema, serving_environment: str) -> list[Finding]:
    """Holds a split that has labels against the schema."""
    environment = training_environment(schema, serving_environment)
    anomalies = tfdv.validate_statistics(summary.statistics, schema, environment=environment)
    infos = [(info.path.step[0] if info.path.step else key, info) for key, info in anomalies.anomaly_info.items()]
    infos.append(("", anomalies.dataset_anomaly_info))
    return [
        Finding(summary.split.name, feature, anomalies_pb2.AnomalyInfo.Type.Name(reason.type), reason.description)
        for feature, info in infos
        for reason in info.reason
    ]


def training_environment(schema: schema_pb2.Schema, serving_environment: str) -> str | None:
    """Gives the environment in which rows have labels; None: the schema makes no difference."""
    if _TRAINING in schema.default_environment:
        return _TRAINING
    return next((one for one in schema.default_environment if one != serving_environment), None)
