"""How many tokens a text has, by a model file's vocabulary alone: no weights are read."""

from __future__ import annotations

from pathlib import Path

import llama_cpp.llama_cpp as C

from flashfeed.models.errors import ConfigError

from .model import quieten
from .tokeniser import Tokeniser


class TokenCount:
    """The tokeniser of a GGUF file. Raises ConfigError where there is none in it."""

    def __init__(self, path: Path) -> None:
        quieten()
        C.llama_backend_init()
        params = C.llama_model_default_params()
        params.vocab_only = True
        self._model = C.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise ConfigError(f"expected a GGUF model with a vocabulary, got {path}")
        template = C.llama_model_chat_template(self._model, None) or b""
        self._tokeniser = Tokeniser(
            C.llama_model_get_vocab(self._model), template.decode("utf-8", "replace")
        )

    def __call__(self, text: str) -> int:
        """The tokens of a text from outside; nothing in it is a special token."""
        return len(self._tokeniser.text(text))
