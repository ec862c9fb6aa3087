"""Whether rows conform to the schema, by TFDV."""

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from components.data_statistics.findings import Finding
from components.data_statistics.statistics import StatisticsList

_TRAINING = "TRAINING"


def check_schema(
    statistics: StatisticsList, schema: schema_pb2.Schema, environment: str | None, where: str
) -> list[Finding]:
    """Holds rows against the schema.

    Args:
        statistics: of the rows.
        schema: what they should be.
        environment: of the schema, in which the rows are; None: it makes no difference.
        where: the rows are, e.g. the name of their split.
    """
    anomalies = tfdv.validate_statistics(statistics, schema, environment=environment)
    infos = [(info.path.step[0] if info.path.step else key, info) for key, info in anomalies.anomaly_info.items()]
    infos.append(("", anomalies.dataset_anomaly_info))
    return [
        Finding(where, feature, anomalies_pb2.AnomalyInfo.Type.Name(reason.type), reason.description)
        for feature, info in infos
        for reason in info.reason
    ]


def training_environment(schema: schema_pb2.Schema, serving_environment: str) -> str | None:
    """Gives the environment in which rows have labels; None: the schema makes no difference."""
    if _TRAINING in schema.default_environment:
        return _TRAINING
    return next((one for one in schema.default_environment if one != serving_environment), None)
