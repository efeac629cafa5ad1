"""Tries a model file in a process of its own, once, before a worker loads it.

llama.cpp aborts its process on some files (no layers, more experts used than there are),
and files come from requests too. So a child loads the file, makes a context and decodes a
few tokens in a fork; what kills the child is refused. The verdict is kept for the file's
hash and llama.cpp's version; "good" is good for sessions, embeddings or both:

    <cache>/models/<hash>-<version>.probed
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from flashfeed.models.errors import ConfigError, FlashfeedError, ModelRefused, ModelUnavailable
from flashfeed.models.session import CHOICES_MAX

from .context import Context
from .embed import EmbeddingModel, embedding_refusal
from .gguf import read_header
from .machine import llama_cpp_build
from .measure import feed
from .model import Model
from .model_hash import model_hash, write_atomically
from .plan import Pass, Run
from .settings import EngineSettings

_TIMEOUT_S: Final = 600.0
_REFUSED: Final = 3
_CELLS: Final = 256


def probe(path: Path, cache: Path) -> None:
    """Returns where the model can be used. Blocks; the first time as long as loading takes.

    Raises ModelRefused where it cannot, with llama.cpp's last words, and ModelUnavailable
    where the child took too long.
    """
    key = hashlib.sha256("\n".join((model_hash(path), *llama_cpp_build())).encode()).hexdigest()
    verdict = cache / "models" / f"{path.stem}-{key[:12]}.probed"
    if verdict.is_file():
        return
    # ggml's backtrace starts a debugger, which takes seconds and stops the parent too.
    environment = {**os.environ, "GGML_NO_BACKTRACE": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", __spec__.name, str(path)],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelUnavailable(f"{path}: llama.cpp did not load it in {_TIMEOUT_S:.0f} s") from None
    if done.returncode == _REFUSED:
        raise ModelRefused(done.stdout.decode("utf-8", "replace").strip())
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        asserted = next((line for line in said if "GGML_ASSERT" in line), "")
        raise ModelRefused(
            f"{path}: expected a model that llama.cpp can run, got one that ends its process "
            f"({_end(done.returncode)}): {asserted or ' '.join(said[-1:])}"
        )
    verdict.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(verdict, "good\n")


def _end(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"code {code}"


def _try(path: Path) -> None:
    """Raises where it serves neither sessions nor embeddings."""
    if not embedding_refusal(read_header(path)):
        _try_embedding(path)
        with contextlib.suppress(ConfigError):
            _try_session(path)
    else:
        _try_session(path)


def _try_embedding(path: Path) -> None:
    model = EmbeddingModel.load(path, 0)
    model.embed([model.tokens("150.70"), model.tokens("150.70 +0.31%")], 1)
    model.free()


def _try_session(path: Path) -> None:
    model = Model.load(path, 0)
    settings = EngineSettings(
        model_path=path, threads=1, batch_tokens=32, outputs_max=1, forks_max=CHOICES_MAX
    )
    context = Context(model, settings, _CELLS)
    tokens = (model.tokens("150.70 +0.31%\n") or (0,)) * 2
    feed(context, 0, tokens[:16], 0)
    context.fork(0, (1,), context.ends[0])
    context.run(Pass((Run(tokens[:4], context.ends[1], (1,), (len(tokens[:4]) - 1,)),)))
    context.drop((1,))
    end = context.ends[0]
    context.commit(0)
    feed(context, 0, tokens[:4], end)
    context.truncate(0, end)
    context.free()
    model.free()


def main(path: str) -> int:
    """The child: 0 where the model works, _REFUSED with the reason on stdout."""
    try:
        _try(Path(path))
    except FlashfeedError as error:
        print(error)
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
