"""Private interfaces of torch: what capture takes from them is still there, and still means the same."""

import torch
from torch.func import vmap

from fmcluster.capture._compat import in_backward, is_transformed


def test_a_backward_pass_is_known_from_inside():
    seen = []
    leaf = torch.ones(2, requires_grad=True)
    out = leaf * 2
    out.register_hook(lambda _: seen.append(in_backward()))
    assert not in_backward(), "torch._C._current_graph_task_id no longer says -1 outside of a backward pass"
    out.sum().backward()
    assert seen == [True], "torch._C._current_graph_task_id no longer tells that a backward pass is going on"


def test_tensors_inside_a_transformation_are_known():
    seen = []
    vmap(lambda x: seen.append(is_transformed(x)) or x)(torch.ones(3, 2))
    assert seen == [True], "torch._C._functorch.is_functorch_wrapped_tensor no longer knows what vmap hands on"
    assert not is_transformed(torch.ones(3))
