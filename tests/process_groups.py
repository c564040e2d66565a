"""Runs a function in several processes that know of each other, as those of a distributed run on a CPU do."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from typing import Any

import torch
from free_ports import free_port

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["hf_nmt.training.trainer", "process_groups", "toy_training"])


def run_in_processes(function: Callable[..., Any], count: int, *arguments: Any) -> list[Any]:
    """`function(*arguments)` in each of `count` processes of one group (gloo); what each gave back, by rank.

    Args:
        function: of a module; arguments and result are pickled. It finds rank and world size in the environment.
        count: processes; one runs without a group.
        arguments: of the function.
    """
    port = free_port()
    pipes, processes = [], []
    for rank in range(count):
        pipe, end = _context.Pipe(duplex=False)
        variables = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
        variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_WORLD_SIZE": str(count)}
        process = _context.Process(
            target=_child, args=(end, variables if count > 1 else {}, function, arguments), daemon=True
        )
        process.start()
        end.close()
        pipes.append(pipe)
        processes.append(process)
    results = [pipe.recv() if pipe.poll(300) else None for pipe in pipes]  # EOFError: that process failed
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0] * count
    return results


def _child(pipe: Any, variables: dict[str, str], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ.update(variables)
    torch.set_num_threads(1)
    pipe.send(function(*arguments))
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
