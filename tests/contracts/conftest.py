"""Contract tests start no Ray and leave no connection to a store open."""

from tests.apart import no_ray, stores_are_closed

__all__ = ["no_ray", "stores_are_closed"]
