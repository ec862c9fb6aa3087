"""That something is not as it should be, and how it is told."""

from dataclasses import dataclass

from components.data_statistics.kinds import OWN, kind


@dataclass(frozen=True)
class Finding:
    """That something is not as it should be; the offending rows are not yet counted."""

    split: str
    feature: str
    """Empty: the whole split."""
    type: str
    words: str = ""
    """TFDV's description, or a detail."""


def percent(share: float) -> str:
    """Writes a share so that something never reads as nothing, nor less than all as all."""
    if 0 < share < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= share < 1:
        return "> 99.9 %"
    return f"{100 * share:.1f} %"


def describe(type_: str, share: float | None, words: str) -> str:
    """Gives the short description of an anomaly.

    Args:
        type_: of the anomaly.
        share: of the rows, if known.
        words: TFDV's description or a detail, used where the kind has no words of its own.
    """
    text = kind(type_).text
    if not text:
        return words.strip().rstrip(".") or type_
    if text.startswith("of "):
        return f"{percent(share)} {text}" if share is not None else f"some {text}"
    return f"{text}: {words}" if words and type_ in OWN else text
