"""What a source's values become: the types that a schema knows."""

import pyarrow as pa
import pyarrow.compute as pc

from components.schema import Column
from components.window_features.values import MILLISECONDS_FROM

_EXACT_IN_FLOAT64 = 2**53
_ZONE = r"([Zz]|[+-]\d{2}(:?\d{2})?)$"
_CLOCK_BEFORE_ZONE = ":"


class UnfitValueError(Exception):
    """A value that cannot become the column's type without loss, and its position in the array, from 0."""

    def __init__(self, row: int, value: object) -> None:
        super().__init__(row, value)
        self.row = row
        self.value = value


def fits(source: pa.DataType, column: Column) -> bool:
    """Tells whether values of a Parquet file's type may become the column's type; single values may still not fit."""
    types = pa.types
    if types.is_dictionary(source):
        source = source.value_type
    if types.is_null(source):
        return True
    if _is_text(source):
        return pa.types.is_string(column.type) or column.is_time
    number = types.is_integer(source) or types.is_floating(source) or types.is_decimal(source)
    moment = types.is_timestamp(source) or types.is_date(source)
    return (not types.is_string(column.type) and (number or types.is_boolean(source))) or (column.is_time and moment)


def column_of(name: str, source: pa.DataType) -> Column | None:
    """Gives the column that values of a file's type become when no schema says so; None: no table can hold it."""
    types = pa.types
    if types.is_dictionary(source):
        source = source.value_type
    if types.is_null(source) or _is_text(source):
        return Column(name, pa.string(), required=False, is_time=False)
    if types.is_integer(source) or types.is_boolean(source):
        return Column(name, pa.int64(), required=False, is_time=False)
    if types.is_floating(source) or types.is_decimal(source):
        return Column(name, pa.float32(), required=False, is_time=False)
    if types.is_timestamp(source) or types.is_date(source):
        return Column(name, pa.int64(), required=False, is_time=True)
    return None


def conform(array: pa.Array, column: Column) -> pa.Array:
    """Converts values to the column's type. NaN becomes a missing value; times lose fractions of a second.

    Raises:
        UnfitValueError: a value does not fit, with the first such value.
    """
    try:
        return _convert(array, column)
    except pa.ArrowInvalid as error:
        row = _first_unfit(array, column)
        raise UnfitValueError(row, array[row].as_py()) from error


def unix_seconds(array: pa.Array) -> pa.Array:
    """Converts times (numbers of seconds, timestamps, dates or ISO 8601 text; UTC where no zone is said) to int64.

    Raises:
        pyarrow.ArrowInvalid: a value is no time.
    """
    if _is_text(array.type):
        array = _times_from_text(array)
    if pa.types.is_date(array.type):
        return array.cast(pa.timestamp("s")).cast(pa.int64())
    if pa.types.is_timestamp(array.type):
        # Without its zone a timestamp still counts from 1970 UTC, and flooring needs no zone database.
        naive = array.cast(pa.timestamp(array.type.unit))
        return pc.floor_temporal(naive, unit="second").cast(pa.timestamp("s")).cast(pa.int64())
    return _integers(array)


def unix_milliseconds(array: pa.Array) -> pa.Array:
    """Converts times (ISO 8601 text, UTC where no zone is said; numbers of seconds or of milliseconds) to int64.

    Raises:
        pyarrow.ArrowInvalid: a value is no time.
    """
    if _is_text(array.type):
        array = _times_from_text(array)
    if pa.types.is_timestamp(array.type):
        return pc.floor_temporal(array, unit="millisecond").cast(pa.timestamp("ms"), safe=False).cast(pa.int64())
    numbers = _integers(array)
    is_seconds = pc.less(pc.abs(numbers), MILLISECONDS_FROM)
    # What is not chosen may overflow.
    return pc.if_else(is_seconds, pc.multiply(numbers, 1000), numbers)


def _convert(array: pa.Array, column: Column) -> pa.Array:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if column.is_time:
        return unix_seconds(array)
    if pa.types.is_string(column.type):
        return array.cast(pa.string())
    if pa.types.is_integer(column.type):
        return _integers(array)
    return _floats(array)


def _integers(array: pa.Array) -> pa.Array:
    if pa.types.is_integer(array.type):
        return array.cast(pa.int64())
    if _is_text(array.type):
        return _integers_from_text(_trimmed(array))
    if pa.types.is_floating(array.type):
        array = _without_nan(array)
        largest = pc.max(pc.abs(array)).as_py()
        if largest is not None and largest > _EXACT_IN_FLOAT64:
            raise pa.ArrowInvalid(f"{largest} is beyond the integers that a float holds exactly")
    return array.cast(pa.int64())


def _integers_from_text(array: pa.Array) -> pa.Array:
    for through in (pa.int64(), pa.float64(), pa.bool_()):
        try:
            values = array.cast(through)
        except pa.ArrowInvalid:
            continue
        return _integers(values)
    raise pa.ArrowInvalid("neither integers nor truth values")


def _floats(array: pa.Array) -> pa.Array:
    if _is_text(array.type):
        array = _trimmed(array)
    wide = _without_nan(array.cast(pa.float64(), safe=False))
    narrow = wide.cast(pa.float32(), safe=False)
    if pc.any(pc.and_(pc.is_inf(narrow), pc.is_finite(wide))).as_py():
        raise pa.ArrowInvalid("a number is too large for float32")
    return narrow


def _times_from_text(array: pa.Array) -> pa.Array:
    """Gives timestamps[us], or int64 where all text is numbers."""
    text = _trimmed(array)
    try:
        return text.cast(pa.int64())
    except pa.ArrowInvalid:
        pass
    has_zone = pc.and_(pc.match_substring_regex(text, _ZONE), pc.match_substring(text, _CLOCK_BEFORE_ZONE))
    nothing = pa.scalar(None, pa.string())
    local = pc.if_else(has_zone, nothing, text).cast(pa.timestamp("us"))
    zoned = pc.if_else(has_zone, text, nothing).cast(pa.timestamp("us", "UTC"))
    return pc.coalesce(local, zoned.cast(pa.timestamp("us")))


def _trimmed(array: pa.Array) -> pa.Array:
    """Strips blanks; what is then empty is missing."""
    text = pc.utf8_trim_whitespace(array.cast(pa.string()))
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def _without_nan(array: pa.Array) -> pa.Array:
    return pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)


def _first_unfit(array: pa.Array, column: Column) -> int:
    """Finds the first value without which the ones before it convert, by bisection."""
    good, bad = 0, len(array)
    while bad - good > 1:
        middle = (good + bad) // 2
        try:
            _convert(array[good:middle], column)
            good = middle
        except pa.ArrowInvalid:
            bad = middle
    return good


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
    )
