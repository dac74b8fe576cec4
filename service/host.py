"""Where models live: loads versions, keeps the most recently used, and predicts. The one importer of torch.

A Ray Serve replica and the in-process backend run this same class.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import structlog
import torch
from pydantic import BaseModel

from models.core.checkpoint import CheckpointError
from models.core.devices import autocast, pick_device
from models.core.inputs import ImageSpec, InputError, InputSpec, TextSpec, VectorSpec
from models.core.method import Method, MethodError
from models.core.registry import MethodEntry, Registry, UnknownMethodError
from models.core.store import BlobStore
from models.core.versions import UnknownVersionError, Versions
from service.calls import Failed, Refused, Reply
from service.settings import Settings

log = structlog.get_logger("deepnight.host")


@dataclass
class Loaded:
    """A version in memory."""

    entry: MethodEntry
    method: Method[Any, Any]
    seconds: float
    reported: bool = False
    params: dict[bytes, BaseModel] = field(default_factory=dict)

    def parse(self, raw: bytes) -> BaseModel:
        """The parameters of a call, parsed once for each spelling."""
        known = self.params.get(raw)
        if known is None:
            if len(self.params) >= 256:
                self.params.clear()
            known = self.params[raw] = self.entry.params.model_validate_json(raw)
        return known


class ModelHost:
    """Versions of methods in memory, least recently used out."""

    def __init__(self, settings: Settings) -> None:
        torch.set_num_threads(settings.torch_threads)
        registry = Registry(*settings.method_roots)
        cache = settings.home.resolve() / "cache" / "versions"
        self._versions = Versions(registry, BlobStore(settings.store), cache)
        self._device = pick_device(settings.device)
        self._precision = settings.precision
        self._capacity = settings.models_per_replica
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()
        self._lock = threading.Lock()
        self._loading: dict[str, threading.Lock] = {}

    def call(self, model: str, params: bytes, inputs: Any) -> Reply:
        """Predict one batch; what fails is told in the reply, item by item where that is possible."""
        try:
            loaded = self.get(model)
        except (CheckpointError, UnknownMethodError, UnknownVersionError, ValueError) as error:
            return Reply(failure=f"it cannot be loaded: {error}")
        started = time.perf_counter()
        outputs = self._predict(loaded, inputs, loaded.parse(params))
        seconds = time.perf_counter() - started
        load_seconds, loaded.reported = (None if loaded.reported else loaded.seconds), True
        return Reply(_pack(outputs), seconds=seconds, load_seconds=load_seconds)

    def get(self, model: str) -> Loaded:
        """The version ``model`` (``slug@version``), loaded and warm.

        Raises:
            CheckpointError: its checkpoint is damaged.
            UnknownMethodError, UnknownVersionError: there is none.
        """
        with self._lock:
            if model in self._loaded:
                self._loaded.move_to_end(model)
                return self._loaded[model]
            loading = self._loading.setdefault(model, threading.Lock())
        with loading:
            with self._lock:
                if model in self._loaded:
                    return self._loaded[model]
            loaded = self._load(model)
            with self._lock:
                self._loaded[model] = loaded
                self._loading.pop(model, None)
                while len(self._loaded) > self._capacity:
                    self._loaded.popitem(last=False)
        return loaded

    def _load(self, model: str) -> Loaded:
        started = time.perf_counter()
        version = self._versions.resolve(model)
        checkpoint = self._versions.checkpoint(version)
        method = version.entry.method.load(checkpoint, self._device)
        loaded = Loaded(version.entry, method, 0.0)
        example = _example(checkpoint.config.input)
        if example is not None:
            self._run(loaded, example, version.entry.params())
        loaded.seconds = time.perf_counter() - started
        log.info("model loaded", model=model, seconds=round(loaded.seconds, 3), device=str(self._device))
        return loaded

    def _run(self, loaded: Loaded, inputs: Any, params: BaseModel) -> Sequence[Any]:
        with torch.inference_mode(), autocast(self._device, self._precision):
            return loaded.method.predict(inputs, params)

    def _predict(self, loaded: Loaded, inputs: Any, params: BaseModel) -> Sequence[Any]:
        """Predict, and when the batch fails, its halves: a bad item fails alone."""
        try:
            return self._run(loaded, inputs, params)
        except (MethodError, InputError) as error:
            if len(inputs) == 1:
                return [Refused(str(error))]
        except Exception:
            if len(inputs) == 1:
                log.exception("prediction failed", model=loaded.entry.slug)
                return [Failed("the method failed on this input")]
        half = len(inputs) // 2
        first = self._predict(loaded, inputs[:half], params)
        return [*first, *self._predict(loaded, inputs[half:], params)]


def _example(spec: InputSpec) -> Any:
    match spec:
        case ImageSpec():
            return np.zeros((1, *spec.shape), dtype=np.uint8)
        case VectorSpec():
            return np.zeros((1, spec.size), dtype=np.float32)
        case TextSpec():
            return ["a text"]
        case _:
            return None


def _pack(outputs: Any) -> Any:
    """Outputs of one shape as one array, which crosses processes without a copy for each."""
    if isinstance(outputs, np.ndarray):
        return outputs
    if outputs and all(isinstance(o, np.ndarray) and o.shape == outputs[0].shape for o in outputs):
        return np.stack(outputs)
    return list(outputs)
