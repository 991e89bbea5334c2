"""Private interfaces of torch that capture depends on; checked with torch 2.9 to 2.14.

`tests/capture/test_compat.py` says what broke when one of them changes.
"""

import torch


def in_backward() -> bool:
    """Whether a backward pass is going on in this thread: what fires then is recomputed, by gradient checkpointing."""
    return bool(torch._C._current_graph_task_id() != -1)  # as torch.utils.module_tracker asks


def is_transformed(tensor: torch.Tensor) -> bool:
    """Whether a tensor stands for many, or for a derivative, inside a transformation of `torch.func`."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))
