"""Callbacks for training tools: each file is thin, imports its own tool, and logs through a `Journal`."""
