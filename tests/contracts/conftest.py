"""Contract tests start no Ray and leave no connection to a store open."""

from tests.apart import database, no_ray, run, store, stores_are_closed, url

__all__ = ["database", "no_ray", "run", "store", "stores_are_closed", "url"]
