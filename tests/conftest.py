"""For every test: properties are tried without a time limit, and in CI with the same examples every time."""

from __future__ import annotations

import os

import hypothesis

# A machine under load is slow, not wrong. A developer's run looks at new examples; a landing must not fail by a draw.
hypothesis.settings.register_profile("ours", deadline=None, derandomize="CI" in os.environ, print_blob=True)
hypothesis.settings.load_profile("ours")
