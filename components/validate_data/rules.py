"""The section `validation` of pipeline.yaml, held against the columns it speaks about."""

import difflib
from collections.abc import Collection, Iterable
from typing import Literal

from components.data_statistics.kinds import GROUPS, TYPES, kind
from components.errors import InputError
from components.settings import Comparison, Comparisons, Severity, Validation

Against = Literal["eval", "production"]


class Rules:
    """How much an anomaly matters, and how far distributions may be apart."""

    def __init__(self, validation: Validation, features: Collection[str], categorical: Collection[str]) -> None:
        """Checks every name that the configuration uses.

        Args:
            validation: the section.
            features: names of all columns, of the data or the schema.
            categorical: those whose values are compared one by one.

        Raises:
            InputError: an anomaly type or feature that does not exist, with the nearest that does; a limit
                that cannot be applied.
        """
        self._features = frozenset(features)
        self._severity = dict(_exploded(key, value, self._features) for key, value in validation.severity.items())
        self._limits: dict[Against, Comparisons] = {"eval": validation.skew, "production": validation.drift}
        self._categorical = frozenset(categorical)
        for section, limits in (("skew", validation.skew), ("drift", validation.drift)):
            self._check_limits(f"validation.{section}.features", limits)

    def severity(self, feature: str, type_: str, against: str = "") -> Severity:
        """Gives the severity: of the feature and type, else the feature, else the type, else the default."""
        group = {"eval": "SKEW", "production": "DRIFT"}.get(against, "")
        for key in ((feature, type_), (feature, group), (feature, ""), ("", type_), ("", group)):
            if any(key) and key in self._severity:
                return self._severity[key]
        return kind(type_).severity

    def limits(self, feature: str, against: Against, countable: bool = True) -> Comparison:
        """Gives the limits on the distance between train and eval, or train and production.

        Args:
            feature: the column.
            against: what train is compared with.
            countable: whether the column has so few values that each is counted. The default limits leave
                the others (identifiers, free text) alone: their values differ by nature.
        """
        limits = self._limits[against]
        if feature in limits.features:
            return limits.features[feature]
        if not countable:
            return Comparison()
        if feature in self._categorical:
            return limits.default
        return limits.default.model_copy(update={"l_infinity": None})

    def _check_limits(self, place: str, limits: Comparisons) -> None:
        for feature, limit in limits.features.items():
            if feature not in self._features:
                raise InputError(f"{place}: no feature '{feature}'{nearest(feature, self._features)}")
            if limit.l_infinity is not None and feature not in self._categorical:
                raise InputError(
                    f"{place}.{feature}: l_infinity compares categories and '{feature}' is a number; "
                    "give jensen_shannon instead"
                )


def nearest(name: str, known: Iterable[str]) -> str:
    """Ends a message about an unknown name: "; did you mean …" or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1) or difflib.get_close_matches(
        name.upper(), list(known), n=1
    )
    return f"; did you mean '{close[0]}'?" if close else ""


def _exploded(key: str, severity: Severity, features: Collection[str]) -> tuple[tuple[str, str], Severity]:
    types = TYPES.union(GROUPS)
    if key in types:
        return ("", key), severity
    if key in features:
        return (key, ""), severity
    feature, slash, type_ = key.rpartition("/")
    if feature in features and type_ in types:
        return (feature, type_), severity
    if slash and feature in features:
        raise InputError(f"validation.severity: unknown anomaly type in '{key}'{nearest(type_, types)}")
    if slash and type_ in types:
        raise InputError(f"validation.severity: no feature '{feature}' in '{key}'{nearest(feature, features)}")
    raise InputError(
        f"validation.severity: '{key}' is no anomaly type, feature or feature/type{nearest(key, types.union(features))}"
    )
