"""`python -m drivers.chaos`."""

import sys

from drivers.chaos import main

sys.exit(main())
