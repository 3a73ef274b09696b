"""Sources: metrics come from where they already are. One file for each kind; `feed` makes them exactly once."""
