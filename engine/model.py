"""The weights and the vocabulary of one GGUF model, read through llama.cpp's C API.

Text from records and users goes through `tokens`, which never makes a special token of
it; only a chat template's own pieces go through `template_tokens`. Everything here but
`load` and `free` may be called from any thread.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import llama_cpp.llama_cpp as C

from flashfeed.models.errors import ConfigError, ModelRefused

from .capabilities import Capabilities, capabilities, refusal
from .chat import ChatPieces, ChatTemplate, Segment, chat_pieces
from .gguf import Header, read_header
from .grammar import Vocabulary
from .model_hash import model_hash
from .recurrent import state_bytes
from .tokeniser import Tokeniser
from .turn_gaps import Turns, find_turns

_log: Final = logging.getLogger("flashfeed.engine.llama")
_ERROR_LEVEL: Final = 3
_CONTINUED_LEVEL: Final = 5
_PIECE_BYTES: Final = 256
_TEMPLATE_BYTES: Final = 1 << 20


@C.llama_log_callback  # type: ignore[untyped-decorator, unused-ignore]
def _to_logging(level: int, text: bytes, _: object) -> None:
    message = text.decode("utf-8", "replace").rstrip()
    if message and level != _CONTINUED_LEVEL:
        _log.log(logging.WARNING if level == _ERROR_LEVEL else logging.DEBUG, "%s", message)


def quieten() -> None:
    """llama.cpp's own log goes to `logging`: its errors as warnings, the rest as debug."""
    C.llama_log_set(_to_logging, ctypes.c_void_p(0))


class Model:
    """A loaded model. `ends` are the tokens that end an answer; `header` is the file's,
    `hash` its SHA-256, `capabilities` what sessions of it can do, `state_bytes` what a
    sequence takes beside its cells (0: nothing)."""

    def __init__(self, handle: Any, header: Header, file_hash: str) -> None:
        self.handle = handle
        self.header = header
        self.hash = file_hash
        self.capabilities: Capabilities = capabilities(
            header.architecture,
            rope_type=int(C.llama_model_rope_type(handle)),
            n_swa=int(C.llama_model_n_swa(handle)),
            recurrent=bool(C.llama_model_is_recurrent(handle) or C.llama_model_is_hybrid(handle)),
        )
        self._vocab = C.llama_model_get_vocab(handle)
        self.n_vocab = int(C.llama_vocab_n_tokens(self._vocab))
        self.n_embd = int(C.llama_model_n_embd(handle))
        self.n_ctx_train = int(C.llama_model_n_ctx_train(handle))
        self.name = self._meta("general.name") or "model"
        self.ends = frozenset(
            token for token in range(self.n_vocab) if C.llama_vocab_is_eog(self._vocab, token)
        )
        self.state_bytes = 0 if self.capabilities.cuts else state_bytes(handle)
        self._pieces: dict[tuple[int, bool], bytes] = {}
        bos = int(C.llama_vocab_bos(self._vocab))
        eos = int(C.llama_vocab_eos(self._vocab))
        source = self._meta("tokenizer.chat_template")
        self._template = ChatTemplate(source, self._text(bos), self._text(eos))
        self._tokeniser = Tokeniser(self._vocab, source or "")
        self.chat: ChatPieces = chat_pieces(self._template)
        # Some templates write the beginning-of-sequence token, for others it is our part.
        wants_bos = bos >= 0 and bool(C.llama_vocab_get_add_bos(self._vocab))
        written = self.chat.bare.startswith(self._text(bos))
        self.first_tokens = (bos,) if wants_bos and not written else ()
        self.tail = self.template_tokens(self.chat.tail)
        # The template knows how a turn ends; vocabularies often name another token.
        ended = [token for token in self.tail[:1] if token in self.ends]
        self.end_of_turn = ended[0] if ended else eos

    @classmethod
    def load(cls, path: Path, gpu_layers: int) -> Model:
        """Reads the weights. Raises ConfigError where the file is no model, ModelRefused
        where it is one that sessions cannot run on; the message says why."""
        quieten()
        C.llama_backend_init()
        params = C.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        if not path.is_file():
            raise ConfigError(f"expected a GGUF model file at {path}, got none")
        header = read_header(path)
        handle = C.llama_model_load_from_file(str(path).encode(), params)
        if not handle:
            raise ConfigError(f"expected a GGUF model that llama.cpp can load, got {path}")
        try:
            reason = refusal(
                header.architecture,
                diffusion=bool(C.llama_model_is_diffusion(handle)),
                encoder=bool(C.llama_model_has_encoder(handle)),
                causal=bool(header.number("attention.causal", 1)),
                vocabulary=int(C.llama_vocab_type(C.llama_model_get_vocab(handle))),
            )
            if reason:
                raise ModelRefused(f"{path}: {reason}")
            return cls(handle, header, model_hash(path))
        except BaseException:
            C.llama_model_free(handle)
            raise

    def free(self) -> None:
        """Gives the weights back; no context of this model may be left."""
        C.llama_model_free(self.handle)
        self.handle = None

    @cached_property
    def turns(self) -> Turns:
        """How the template writes a conversation. Raises ConfigError where it cannot."""
        return find_turns(self._template)

    def segment_tokens(self, segments: Iterable[Segment]) -> tuple[int, ...]:
        """The tokens of a prompt in segments, each tokenised by itself."""
        return tuple(
            token
            for one in segments
            for token in (self.template_tokens if one.special else self.tokens)(one.text)
        )

    def tokens(self, text: str) -> tuple[int, ...]:
        """The tokens of a text from outside: what looks like a special token stays text."""
        return self._tokeniser.text(text)

    def template_tokens(self, text: str) -> tuple[int, ...]:
        """The tokens of a piece of the chat template, its special tokens included."""
        return self._tokeniser.template(text)

    def piece(self, token: int, special: bool = False) -> bytes:
        """The bytes of one token; those of a special token only where asked for."""
        known = self._pieces.get((token, special))
        if known is not None:
            return known
        size = _PIECE_BYTES
        while True:
            buffer = ctypes.create_string_buffer(size)
            n = int(C.llama_token_to_piece(self._vocab, token, buffer, size, 0, special))
            if n >= 0:
                break
            size = -n
        self._pieces[token, special] = buffer.raw[:n]
        return buffer.raw[:n]

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """All tokens' bytes, for grammars; made at first use (some 0.1 s)."""
        return Vocabulary([self.piece(token) for token in range(self.n_vocab)])

    def text(self, tokens: Any) -> str:
        """The text of tokens, special ones included; broken characters are replaced."""
        return b"".join(self.piece(token, True) for token in tokens).decode("utf-8", "replace")

    def _meta(self, key: str) -> str | None:
        buffer = ctypes.create_string_buffer(_TEMPLATE_BYTES)
        n = C.llama_model_meta_val_str(self.handle, key.encode(), buffer, _TEMPLATE_BYTES)
        return buffer.value.decode("utf-8", "replace") if n >= 0 else None

    def _text(self, token: int) -> str:
        return self.text((token,)) if token >= 0 else ""
