"""Run the demo as `python -m drivers.demo`."""

import sys

from drivers.demo import main

sys.exit(main())
