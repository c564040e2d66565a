"""What the processes of a training tell each other."""

from __future__ import annotations

from typing import Any

from accelerate.utils import broadcast_object_list


def from_first(value: Any, world_size: int) -> Any:
    """The value that the first process has; every process calls it.

    Args:
        value: of this process.
        world_size: how many processes there are.
    """
    if world_size == 1:
        return value
    values = [value]
    broadcast_object_list(values)
    return values[0]
