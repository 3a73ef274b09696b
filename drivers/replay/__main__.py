"""Run a replay as `python -m drivers.replay`."""

import sys

from drivers.replay import main

sys.exit(main())
