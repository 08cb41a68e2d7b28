"""One training spread over the processes of ``accelerate launch`` or ``torchrun``, each with a device of its own."""

from __future__ import annotations

from typing import TypeVar

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import is_initialized
from accelerate.utils import broadcast_object_list, gather_object

Value = TypeVar("Value")


class Processes:
    """The processes that train a module together, through Hugging Face Accelerate; usually there is one.

    Args:
        module: whose forward pass is the loss.
        optimizer: of its weights.
        device: cpu or cuda, where the module is.
    """

    def __init__(self, module: torch.nn.Module, optimizer: torch.optim.Optimizer, device: str) -> None:
        # Modules are placed already; Accelerate's own device, one for the life of a process, is left aside.
        self._accelerator = Accelerator(
            cpu=device == "cpu" and not is_initialized(),
            device_placement=False,
            mixed_precision="no",
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        self.forward: torch.nn.Module = self._accelerator.prepare(module)
        self._optimizer = self._accelerator.prepare(optimizer)

    @property
    def count(self) -> int:
        """How many there are."""
        return self._accelerator.num_processes

    @property
    def index(self) -> int:
        """Which one this is."""
        return self._accelerator.process_index

    def descend(self, loss: torch.Tensor, weights: list[torch.nn.Parameter], clip: float) -> None:
        """One optimiser step along the gradient of a loss, averaged over the processes and clipped to a norm."""
        self._optimizer.zero_grad(set_to_none=True)
        self._accelerator.backward(loss)
        self._accelerator.clip_grad_norm_(weights, clip)
        self._optimizer.step()

    def agree(self, value: Value) -> Value:
        """The value of the first process."""
        found: list[Value] = broadcast_object_list([value])
        return found[0]

    def gather(self, value: Value) -> list[Value]:
        """The values of all processes, in their order."""
        found: list[Value] = gather_object([value])
        return found
