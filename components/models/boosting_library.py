"""LightGBM, imported where it is needed only: it takes time, and a library of the system."""

import os
from typing import Any

from components.errors import InputError


def lightgbm_library() -> Any:
    """Imports LightGBM.

    Raises:
        InputError: the system lacks what it needs.
    """
    # Its threads wait for each other many times a tree. By default they do so in a loop, which keeps a processor from
    # whoever they wait for: beside one busy process, 200 trees on 245,000 rows took 21 to 38 s so, and 6 s asleep.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        import lightgbm
    except OSError as error:
        raise InputError(f"LightGBM cannot be loaded: {error}; install libgomp (Debian: libgomp1)") from error
    return lightgbm
