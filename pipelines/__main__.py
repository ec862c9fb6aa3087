"""`python -m pipelines`: run, check and look at pipelines and what they published."""

import sys

from pipelines.commands import main

sys.exit(main())
