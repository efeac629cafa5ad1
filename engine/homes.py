"""The models that sessions live on: loaded on demand, shared, unloaded when idle.

A home is a loaded model with the settings its contexts are made with and the questions
it has tokenised. Loading takes seconds and happens in the caller's thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from flashfeed.models.errors import ConfigError, ModelRefused, ModelUnknown, Unavailable

from .embed import EmbeddingModel
from .gguf import kv_bytes
from .model import Model
from .model_pool import ModelPool, Resident
from .questions import Questions
from .recurrent import context_states_bytes, settings_with_states
from .settings import EngineSettings

Locate: TypeAlias = Callable[[str], tuple[str, EngineSettings]]
"""A reference to a model (a spec's `model`) to its name and the settings for it; it may
download the file. Raises ModelUnknown and what a download raises."""

DEFAULT: Final = ""
_EMBEDDINGS: Final = " for embeddings"
"""Behind the name of a model that is loaded for embeddings: sessions have their own."""
_BUFFER_BYTES: Final = 12 << 20


@dataclass(eq=False, frozen=True)
class Home:
    """A loaded model, under its name, and what contexts of it are made with."""

    name: str
    model: Model
    settings: EngineSettings
    questions: Questions

    def context_bytes(self, cells: int) -> int:
        """About what a context of so many cells takes: the KV cache exactly, its sequences'
        states, its rows of logits, and llama.cpp's buffers as they were measured for a small
        model."""
        settings, model = self.settings, self.model
        rows = settings.outputs_max * model.n_vocab * 4
        states = context_states_bytes(model.state_bytes, model.header, settings)
        return kv_bytes(model.header, cells, settings.kv_type) + states + rows + _BUFFER_BYTES


def no_others(reference: str) -> tuple[str, EngineSettings]:
    """For an engine with one model."""
    raise ModelUnknown(f"expected the engine's own model (''), got {reference!r}")


class Homes:
    """Any thread may call. `bytes_max` (0: none) bounds weights and KV caches together."""

    def __init__(
        self, settings: EngineSettings, locate: Locate, bytes_max: int, idle_unload_s: float
    ) -> None:
        self._default: Final = settings
        self._locate: Final = locate
        self._settings: Final[dict[str, EngineSettings]] = {DEFAULT: settings}
        self._homes: Final[dict[str, Home]] = {}
        self._names: Final[dict[str, str]] = {}
        self._lock: Final = threading.Lock()
        self._closed = False
        self._pool: Final[ModelPool[Model | EmbeddingModel]] = ModelPool(
            self._load, bytes_max, idle_unload_s
        )

    def acquire(self, reference: str = DEFAULT) -> Home:
        """The home of a model; each call needs its `release`. Blocks while it loads.

        Raises ModelUnknown, ModelUnavailable, ModelRefused, ConfigError.
        """
        name, settings = self._found(reference)
        self._settings[name] = settings
        model = self._pool.acquire(name, settings.model_path)
        with self._lock:
            self._names[reference] = name
        return self._home(name, model)

    def acquire_loaded(self, reference: str = DEFAULT) -> Home | None:
        """The home of a model that was acquired by this reference before and is loaded still,
        as `acquire` gives it; else None. Waits for nothing. Raises Unavailable."""
        self._expect_open()
        name = self._names.get(reference)
        model = self._pool.acquire_loaded(name) if name is not None else None
        return self._home(name, model) if name is not None and model is not None else None

    @contextmanager
    def embedding(
        self, reference: str = DEFAULT
    ) -> Iterator[tuple[EmbeddingModel, EngineSettings, Callable[[int], None]]]:
        """A model for embeddings, loaded meanwhile; its settings; and what charges the
        bytes of its context for that time. Blocks while it loads.

        Raises what `acquire` raises; ModelRefused where the model gives no embeddings.
        """
        found, settings = self._found(reference)
        name = found + _EMBEDDINGS
        self._settings[name] = settings
        model = self._pool.acquire(name, settings.model_path)
        assert isinstance(model, EmbeddingModel)
        charged = 0

        def charge(n_bytes: int) -> None:
            nonlocal charged
            self._pool.charge(name, n_bytes)
            charged += n_bytes

        try:
            yield model, settings, charge
        finally:
            self._pool.discharge(name, charged)
            self._release(name)

    def keep(self, home: Home) -> None:
        """One user more of a home that is in use."""
        self._pool.acquire(home.name, home.settings.model_path)

    def release(self, home: Home) -> None:
        """One user fewer; with the last one no context of it may be left."""
        self._release(home.name)

    @contextmanager
    def using(self, home: Home) -> Iterator[Home]:
        """The home stays loaded meanwhile, whatever becomes of its sessions."""
        self.keep(home)
        try:
            yield home
        finally:
            self.release(home)

    def charge(self, home: Home, n_bytes: int) -> None:
        """Counts a KV cache before it is made. Raises ModelUnavailable."""
        self._pool.charge(home.name, n_bytes)

    def missing(self, n_bytes: int) -> int:
        """Bytes that must be given back before `charge` takes so many; 0 where it does."""
        return self._pool.missing(n_bytes)

    def discharge(self, home: Home, n_bytes: int) -> None:
        """Gives back what was charged."""
        self._pool.discharge(home.name, n_bytes)

    def unload_idle(self) -> None:
        """Unloads what nobody used for long enough."""
        for name in self._pool.unload_idle(time.monotonic()):
            with self._lock:
                home = self._homes.get(name)
                if home is not None and home.model.handle is None:  # it is not loaded anew
                    del self._homes[name]
                for reference in [one for one, found in self._names.items() if found == name]:
                    del self._names[reference]

    def residents(self) -> list[Resident]:
        """What is loaded now."""
        return self._pool.residents()

    def hashes(self) -> dict[str, str]:
        """The hash of each model that sessions live on, by its name."""
        return {name: home.model.hash for name, home in list(self._homes.items())}

    def close(self) -> None:
        """Unloads all; what is in use still, when it is released."""
        self._closed = True
        self._homes.clear()
        self._pool.close()

    def _expect_open(self) -> None:
        if self._closed:
            raise Unavailable("the engine has stopped")

    def _home(self, name: str, model: Model | EmbeddingModel) -> Home:
        assert isinstance(model, Model)
        with self._lock:  # contexts go by the home: a model has one, whoever comes first
            home = self._homes.get(name)
            if home is None or home.model is not model:
                settings = self._settings[name]
                if not model.capabilities.cuts:
                    settings = settings_with_states(settings)
                home = self._homes[name] = Home(name, model, settings, Questions(model))
            return home

    def _found(self, reference: str) -> tuple[str, EngineSettings]:
        self._expect_open()
        return (DEFAULT, self._default) if reference == DEFAULT else self._locate(reference)

    def _load(self, name: str, path: Path) -> Model | EmbeddingModel:
        settings = self._settings[name]
        if name.endswith(_EMBEDDINGS):
            return EmbeddingModel.load(path, settings.gpu_layers)
        try:
            return _load_model(path, settings)
        except ModelRefused:
            raise
        except ConfigError as error:
            if name == DEFAULT:
                raise
            # A request named it: a model for embeddings, say, that has no chat template.
            raise ModelRefused(str(error)) from error

    def _release(self, name: str) -> None:
        self._pool.release(name, time.monotonic())
        if self._closed:
            self._pool.close()


def _load_model(path: Path, settings: EngineSettings) -> Model:
    model = Model.load(path, settings.gpu_layers)
    try:
        if not model.capabilities.cuts:
            settings_with_states(settings)  # where they do not fit, whoever asked is told here
    except ConfigError:
        model.free()
        raise
    return model
