"""Options of Apache Beam, as people write them."""

import contextlib
import io
from collections.abc import Sequence

from apache_beam.options.pipeline_options import PipelineOptions

from components.errors import InputError


def options_of(beam_args: Sequence[str]) -> PipelineOptions:
    """Reads `beam_args`.

    Raises:
        InputError: Beam does not know one, or its value is wrong.
    """
    options = PipelineOptions(list(beam_args))
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            options.get_all_options()
    except SystemExit as error:  # argparse, after the usage of some hundred options
        cause = said.getvalue().strip().rpartition("error: ")[2]
        raise InputError(f"beam_args: {cause}; give options that Beam knows") from error
    return options
