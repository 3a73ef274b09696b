"""River's drift detectors by name (`river:ADWIN`), for those who have them already. An extra: visutility[river]."""

import importlib
import io
import math
import pickle
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from actors.drift.interface import (
    RECENT,
    Alarm,
    Direction,
    Progress,
    as_values,
    check_direction,
    check_number,
    pack_state,
    unpack_state,
)
from actors.drift.moments import Moments
from actors.plain import Saved

PREFIX = "river:"
_MODULES = ("river.drift", "river.drift.binary")
_UNIT_INTERVAL = {"DDM", "EDDM", "FHDDM", "HDDMA", "HDDMW"}  # they count hits or misses
_LARGEST = 1e100  # river squares and multiplies without looking
_CUT_MEANS = 50  # events after which "recent" is told from "before", where a detector itself does not say


class RiverDetector:
    """Feed one of river's detectors event by event and report its `drift_detected` as an alarm.

    Options are the arguments of river's class. The budget has no effect: river's thresholds have another meaning each
    (docs/results/detection.md shows what false alarms they make). DDM, EDDM, HDDM_A and HDDM_W want misses (1 a miss,
    0 a hit), FHDDM hits, hence values in [0, 1] only. With a direction, an alarm the other way is dropped. Every detector
    starts anew after its alarm.

    >>> [alarm.direction for alarm in RiverDetector("ADWIN").update([0.9, 0.8] * 200 + [0.2, 0.1] * 50)]
    ['down']
    """

    def __init__(
        self, river_name: str, *, false_alarm_every: float = 10_000, direction: Direction = "both", **options: Any
    ) -> None:
        check_number("false_alarm_every", false_alarm_every, above=0)
        self._direction = check_direction(direction)
        self.name = PREFIX + river_name
        self._kind = _find(river_name)
        self._options = dict(options)
        self._binary = _plain(river_name) in _UNIT_INTERVAL
        self._learned_under: Saved = {key: repr(value) for key, value in sorted(options.items())}
        self.reset()

    def reset(self) -> None:
        """Forget everything, as if newly created."""
        try:
            self._inner = self._kind(**self._options)
        except (TypeError, ValueError) as error:
            raise ValueError(f"options of {self.name} must be those of river's class: {error}") from error
        self._seen = 0
        self._before = Moments()
        self._recent: deque[float] = deque(maxlen=_CUT_MEANS)

    def baseline(self, values: npt.ArrayLike) -> None:
        """Forget everything and feed this sample, ignoring what it detects in it."""
        array = self._checked(values)
        self.reset()
        for x in array.tolist():
            self._feed(x)
        self._seen = 0

    def update(self, values: npt.ArrayLike) -> list[Alarm]:
        """Take `values: float64[n]`, oldest first; return the alarms among them."""
        alarms: list[Alarm] = []
        for index, x in enumerate(self._checked(values).tolist()):
            if self._feed(x):
                alarm = self._alarm(index)
                if self._direction in {"both", alarm.direction}:
                    alarms.append(alarm)
                self.reset()
        return alarms

    def _checked(self, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
        array = as_values(values)
        if np.abs(array).max() > _LARGEST:
            raise ValueError(f"values for {self.name} must lie within {_LARGEST:g}, got {array[np.abs(array).argmax()]}")
        if self._binary and not ((array >= 0) & (array <= 1)).all():
            raise ValueError(f"values for {self.name} must lie in [0, 1], got {array[(array < 0) | (array > 1)][0]}")
        return array

    def _feed(self, x: float) -> bool:
        self._seen += 1
        if len(self._recent) == _CUT_MEANS:  # what leaves the recent events joins those before
            self._before.add(self._recent[0])
        self._recent.append(x)
        self._inner.update(x)
        return bool(self._inner.drift_detected)

    def _alarm(self, index: int) -> Alarm:
        recent = list(self._recent)
        width = getattr(self._inner, "width", None)  # ADWIN keeps the new level only
        if width is not None and 1 <= width < len(recent):
            recent = recent[-int(width) :]
        window_mean = math.fsum(recent) / len(recent)
        before = self._before
        return Alarm(
            index=index,
            detector=self.name,
            statistic=1.0,  # river says that, not how strongly
            threshold=1.0,
            direction="down" if window_mean < before.mean else "up",
            baseline_n=before.n,
            baseline_mean=before.mean if before.n else window_mean,
            baseline_sd=before.sd,
            window_n=len(recent),
            window_mean=window_mean,
            estimated_start=len(recent),
            extra={"what": "level"},
        )

    def progress(self) -> Progress:
        """Return how far the detector has got; river keeps its statistic to itself."""
        recent = list(self._recent)
        n = self._before.n + len(recent)
        total = self._before.mean * self._before.n + math.fsum(recent)
        return {
            "state": "stable",
            "baseline": total / n if n else None,
            "recent": float(np.mean(recent[-RECENT:])) if recent else None,
            "seen": self._seen,
            "warmup": 0,
            "n_baseline": n,
            "statistic": 0.0,
            "threshold": 1.0,
        }

    def state(self) -> bytes:
        """Return everything that `restore` needs: msgpack around river's own pickle, whose size river decides."""
        body = {
            "inner": pickle.dumps(self._inner),
            "seen": self._seen,
            "before": self._before.as_list(),
            "recent": list(self._recent),
        }
        return pack_state(self.name, self._learned_under, body)

    def restore(self, state: bytes) -> None:
        """Continue exactly where `state` was taken; raise ValueError where another kind of detector made it."""
        body = unpack_state(self.name, self._learned_under, state)
        inner = _RiverOnly(io.BytesIO(body["inner"])).load()
        if type(inner) is not self._kind:
            raise ValueError(f"state must hold river's {self._kind.__name__}, got {type(inner).__name__}")
        self.reset()
        self._inner = inner
        if "moments" in body:  # of a build before values of any size were taken
            self._seen, *before = body["moments"]
            self._before = Moments.of_squares(*before)
        else:
            self._seen, self._before = int(body["seen"]), Moments.restored(body["before"])
        self._recent.extend(body["recent"])


class _RiverOnly(pickle.Unpickler):
    """Loads what river's detectors consist of and nothing else: a state must not be able to run code."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the class, or raise ValueError for one that no detector of river needs."""
        plain = {
            ("collections", "deque"),
            ("collections", "defaultdict"),
            ("collections", "OrderedDict"),
            ("random", "Random"),
            ("builtins", "set"),
            ("builtins", "list"),
            ("builtins", "dict"),
            ("builtins", "int"),
            ("builtins", "float"),
            ("numpy", "dtype"),
            ("numpy.core.multiarray", "scalar"),
            ("numpy._core.multiarray", "scalar"),
        }
        if (module, name) == ("builtins", "getattr"):
            return _river_method
        if module.split(".", maxsplit=1)[0] == "river" or (module, name) in plain:
            return super().find_class(module, name)
        raise ValueError(f"state must hold a detector of river, got {module}.{name}")


def _river_method(owner: object, name: str) -> Any:
    """Stand in for getattr, by which a bound method is pickled: a detector's own methods and nothing else."""
    if type(owner).__module__.split(".", maxsplit=1)[0] != "river" or name.startswith("__"):
        raise ValueError(f"state must hold a detector of river, got an attribute {name} of {type(owner).__name__}")
    return getattr(owner, name)


def _find(name: str) -> type:
    try:
        modules = [importlib.import_module(module) for module in _MODULES]
    except ImportError as error:
        raise ValueError(f"detector {PREFIX + name!r} needs the extra: pip install 'visutility[river]'") from error
    known: dict[str, type] = {}
    for module in modules:
        known |= {key: value for key, value in vars(module).items() if isinstance(value, type) and hasattr(value, "update")}
    # River 0.26 writes HDDMA what it wrote HDDM_A before; either serves with either version.
    alike = [key for key in known if _plain(key) == _plain(name)]
    if not alike:
        choices = ", ".join(PREFIX + key for key in sorted(known) if not key.startswith("Dummy"))
        raise KeyError(f"detector must be one of {choices}, got {PREFIX + name!r}")
    return known[alike[0]]


def _plain(name: str) -> str:
    return name.replace("_", "")
