"""Where and in which precision something is timed, and what the machine can do there at most.

On a CPU times are CPU seconds of this process, so that others on the machine count less; on a GPU wall seconds between
two synchronisations.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch

Call = Callable[[], object]
Precision = Literal["float32", "tf32", "bfloat16"]

COPIED = 2**25
"""Numbers in the copy whose rate is measured: 128 MiB, more than caches hold."""


@dataclass(frozen=True)
class Mode:
    """A device and a precision: float32 without TF32, float32 with it (GPUs only), or bfloat16 under autocast."""

    device: torch.device
    precision: Precision

    def autocast(self) -> AbstractContextManager[object]:
        """For forward passes."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16")

    @contextmanager
    def products(self) -> Iterator[None]:
        """For whole steps: whether a GPU's float32 products and convolutions may round to TF32."""
        if self.device.type != "cuda":
            yield
            return
        cudnn: Any = torch.backends.cudnn
        settings = torch.backends.cuda.matmul, cudnn.conv
        before = [setting.fp32_precision for setting in settings]
        for setting in settings:
            setting.fp32_precision = "tf32" if self.precision == "tf32" else "ieee"
        try:
            yield
        finally:
            for setting, precision in zip(settings, before, strict=True):
                setting.fp32_precision = precision


CPU = Mode(torch.device("cpu"), "float32")


def pairs(device: torch.device) -> list[tuple[Mode, Mode]]:
    """(reference, here): the same precision on both sides, and float32 against what is fastest here."""
    float32, tf32, bfloat16 = (Mode(device, p) for p in ("float32", "tf32", "bfloat16"))
    found = [(float32, float32)]
    if device.type == "cuda":
        found.append((tf32, tf32))
    if has_bf16(device):
        found += [(float32, bfloat16), (bfloat16, bfloat16)]
    return found


def said(reference: Mode, ours: Mode) -> str:
    """Both precisions in words."""
    if reference == ours:
        return reference.precision
    return f"{reference.precision}, here {ours.precision}"


def has_bf16(device: torch.device = CPU.device) -> bool:
    """Whether the device multiplies bfloat16 itself."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def seconds(call: Call, device: torch.device = CPU.device) -> float:
    """CPU seconds of this process during a call, or wall seconds until a GPU has finished it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        began = time.perf_counter()
        call()
        torch.cuda.synchronize(device)
        return time.perf_counter() - began
    began = time.process_time()
    call()
    return time.process_time() - began


def unit(device: torch.device) -> str:
    """Of `seconds`."""
    return "s" if device.type == "cuda" else "CPU s"


def matrix_product_rate(mode: Mode = CPU) -> float:
    """Operations a second of a large square matrix product, the best of three."""
    n = 8192 if mode.device.type == "cuda" else 2048
    dtype = torch.bfloat16 if mode.precision == "bfloat16" else torch.float32
    a, b = (torch.randn(n, n, device=mode.device).to(dtype) for _ in range(2))
    with mode.products():
        return 2 * n**3 / best_of_three(lambda: torch.mm(a, b), mode.device)


def copy_rate(device: torch.device = CPU.device) -> float:
    """Bytes a second of a copy, those read and those written, the best of three."""
    a = torch.randn(COPIED, device=device)
    b = torch.empty_like(a)
    return 2 * a.nbytes / best_of_three(lambda: b.copy_(a), device)


def best_of_three(call: Call, device: torch.device) -> float:
    """Seconds of the fastest of three calls, after one."""
    call()
    return min(seconds(call, device) for _ in range(3))


def described(device: torch.device) -> str:
    """The device in words, and how busy the machine is."""
    cpu = torch.cpu.get_capabilities().get("cpu_name")
    gpu = f"{torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""
    return f"{gpu}{cpu}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}"
