"""How many tokens a text has, by a model file's vocabulary alone: no weights are read."""

from __future__ import annotations

import ctypes
from pathlib import Path

import llama_cpp.llama_cpp as C

from flashfeed.models.errors import ConfigError

from .model import quieten


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
        self._vocab = C.llama_model_get_vocab(self._model)

    def __call__(self, text: str) -> int:
        """The tokens of a text from outside; nothing in it is a special token."""
        data = text.encode("utf-8", "replace")
        # A token has one byte at least; some vocabularies put a space before a text.
        tokens = (C.llama_token * (len(data) + 8))()
        count = C.llama_tokenize(
            self._vocab, ctypes.c_char_p(data), len(data), tokens, len(tokens), False, False
        )
        return abs(int(count))
