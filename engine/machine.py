"""What a measurement holds for: this processor, these devices, this llama.cpp; and the
folder that measurements and models are kept in."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import threading
from pathlib import Path
from typing import Final

import llama_cpp.llama_cpp as C
from llama_cpp._ggml import libggml

_GPU_TYPES: Final = (1, 2)
"""GGML_BACKEND_DEVICE_TYPE_GPU and _IGPU."""
_UNKNOWN_MEMORY_BYTES: Final = 8 << 30
_SYSTEM_INFO: Final = threading.Lock()


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
    libggml.ggml_backend_dev_description.restype = ctypes.c_char_p
    libggml.ggml_backend_dev_description.argtypes = [ctypes.c_void_p]
    return tuple(
        libggml.ggml_backend_dev_description(device).decode() for device in _device_handles()
    )


def free_memory_bytes(gpu_layers: int) -> int:
    """What is free for KV caches now: on the GPUs where the layers go there, else Linux's
    MemAvailable."""
    if on_gpu(gpu_layers):
        free = sum(_free_bytes(device) for device in _device_handles() if _is_gpu(device))
        if free:
            return free
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return _UNKNOWN_MEMORY_BYTES


def _device_handles() -> list[int]:
    C.llama_backend_init()
    libggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    libggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    libggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    return [
        libggml.ggml_backend_dev_get(index) for index in range(libggml.ggml_backend_dev_count())
    ]


def _is_gpu(device: int) -> bool:
    libggml.ggml_backend_dev_type.restype = ctypes.c_int
    libggml.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    return int(libggml.ggml_backend_dev_type(device)) in _GPU_TYPES


def _free_bytes(device: int) -> int:
    size = ctypes.POINTER(ctypes.c_size_t)
    libggml.ggml_backend_dev_memory.restype = None
    libggml.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p, size, size]
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    libggml.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
    return free.value


def llama_cpp_build() -> tuple[str, str]:
    """llama.cpp's version, and the instructions and devices that it was built for."""
    with _SYSTEM_INFO:  # llama.cpp writes it anew at each call, to one place
        features = bytes(C.llama_print_system_info()).decode("utf-8", "replace")
    return C.llama_version().decode(), features


def on_gpu(gpu_layers: int) -> bool:
    """Whether layers go to a GPU."""
    return bool(C.llama_supports_gpu_offload()) and gpu_layers != 0
