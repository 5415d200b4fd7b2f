"""Twins of methods for asyncio."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")


def twin(of: Callable[_P, _R]) -> Callable[_P, Coroutine[Any, Any, _R]]:
    """The same, awaited: it works on a thread, as the GIL is released meanwhile. One that is cancelled works on, and so it does at Ctrl-C: the end of the loop waits for it."""

    @functools.wraps(of)
    async def awaited(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        return await asyncio.to_thread(of, *args, **kwargs)

    awaited.__name__ = awaited.__qualname__ = f"a{of.__name__}"
    awaited.__doc__ = f"`{of.__name__}`, awaited: on a thread of its own. Cancelled, it works on, and the end of the loop waits for it."
    return awaited
