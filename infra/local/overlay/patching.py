"""Replaces functions of the emulator, but only the ones it knows.

A patch names the digest of the source it was written against. When the pin is
lifted and the function changed, the start fails with a list of every patch to
look at again, rather than running with half of AWS's behaviour.
"""

import hashlib
import importlib.metadata
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

PINNED_VERSION = "1.5.33"

_mismatches: list[str] = []


def digest(function: Callable) -> str:
    """A short fingerprint of a function's source text."""
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:12]


def _check(owner: str, name: str, function: Any, expected: str) -> None:
    if function is None:
        _mismatches.append(f"{owner}.{name}: gone")
        return
    found = digest(function)
    if found != expected:
        _mismatches.append(f"{owner}.{name}: expected {expected}, found {found}")


def replace(module: ModuleType, name: str, new: Callable, expected: str,
            table: dict | None = None, key: str | None = None) -> Callable:
    """Put `new` in the place of `module.name`, and in its dispatch table if it has one.

    Returns the function that stood there, for patches that wrap it.
    """
    old = getattr(module, name, None)
    _check(module.__name__, name, old, expected)
    setattr(module, name, new)
    if table is not None and key is not None:
        if table.get(key) is not old:
            _mismatches.append(f"{module.__name__}: dispatch of {key} does not lead to {name}")
        table[key] = new
    return old


def relies_on(module: ModuleType, name: str, expected: str) -> None:
    """Check a function that a patch leaves alone but whose inner workings it counts on."""
    _check(module.__name__, name, getattr(module, name, None), expected)


def require_version() -> None:
    """Stop unless the installed emulator is the pinned one."""
    found = importlib.metadata.version("ministack")
    if found != PINNED_VERSION:
        raise SystemExit(f"overlay: written for ministack {PINNED_VERSION}, found {found}")


def finish() -> None:
    """Stop, naming every patch that did not fit."""
    if _mismatches:
        lines = "\n  ".join(_mismatches)
        raise SystemExit(f"overlay: the emulator is not the one these patches were written for:\n  {lines}")
