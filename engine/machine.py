"""What a measurement holds for: this processor, these devices, this llama.cpp; and the
folder that measurements and models are kept in."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from pathlib import Path

import llama_cpp.llama_cpp as C
from llama_cpp._ggml import libggml


def cache_folder() -> Path:
    """$FLASHFEED_CACHE or ~/.cache/flashfeed."""
    return Path(os.environ.get("FLASHFEED_CACHE") or Path.home() / ".cache" / "flashfeed")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def cpu() -> str:
    """The processor's name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def devices() -> tuple[str, ...]:
    """The names of what llama.cpp can compute on, the processor included."""
    C.llama_backend_init()
    libggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    libggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    libggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    libggml.ggml_backend_dev_description.restype = ctypes.c_char_p
    libggml.ggml_backend_dev_description.argtypes = [ctypes.c_void_p]
    return tuple(
        libggml.ggml_backend_dev_description(libggml.ggml_backend_dev_get(index)).decode()
        for index in range(libggml.ggml_backend_dev_count())
    )


def llama_cpp_build() -> tuple[str, str]:
    """llama.cpp's version, and the instructions and devices that it was built for."""
    features = bytes(C.llama_print_system_info()).decode("utf-8", "replace")
    return C.llama_version().decode(), features


def on_gpu(gpu_layers: int) -> bool:
    """Whether layers go to a GPU."""
    return bool(C.llama_supports_gpu_offload()) and gpu_layers != 0
