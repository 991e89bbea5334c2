"""Private interfaces of torch and Ignite: each test says what a new version has changed, and what depends on it."""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from types import CodeType
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import vmap
from torch.utils.data import DataLoader

from fmcluster.capture import _compat as compat


@pytest.fixture
def needs() -> Callable[..., Any]:
    """A function that calls another, and says what has changed where that does not work."""

    def call(function: Callable[..., Any], *arguments: Any, interface: str, used_for: str) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            pytest.fail(
                f"{interface} is not what it was ({type(error).__name__}: {error}); {used_for} needs it: adapt "
                f"{function.__name__} in fmcluster/capture/_compat.py (torch {torch.__version__})"
            )

    return call


def test_a_backward_pass_is_noticed(needs: Callable[..., Any]) -> None:
    ask = partial(
        needs,
        compat.in_backward,
        interface="torch._C._current_graph_task_id",
        used_for="not recording twice what gradient checkpointing recomputes",
    )
    seen: list[bool] = []
    value = torch.ones(2, requires_grad=True)
    doubled = value * 2
    doubled.register_hook(lambda _gradient: seen.append(ask()))
    before = ask()
    doubled.sum().backward()
    assert [before, *seen, ask()] == [False, True, False], (
        "torch._C._current_graph_task_id no longer tells a backward pass from none; what gradient checkpointing "
        "recomputes would be recorded twice: adapt in_backward in fmcluster/capture/_compat.py"
    )


def test_batch_norms_of_all_kinds_are_known() -> None:
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    unknown = [kind.__name__ for kind in kinds if not issubclass(kind, compat.BATCH_NORM)]
    assert not unknown, f"{unknown} are none: adapt BATCH_NORM in fmcluster/capture/_compat.py"
    assert not issubclass(nn.InstanceNorm2d, compat.BATCH_NORM)


def test_convolutions_and_poolings_of_all_kinds_are_known() -> None:
    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)
    names = [
        f"{kind}{axes}d" for kind in ("MaxPool", "AvgPool", "AdaptiveMaxPool", "AdaptiveAvgPool") for axes in "123"
    ]
    unknown = [kind.__name__ for kind in convolutions if not issubclass(kind, compat.CONVOLUTION)]
    unknown += [name for name in names if not issubclass(getattr(nn, name), compat.POOLING)]
    unknown += [] if issubclass(nn.InstanceNorm2d, compat.INSTANCE_NORM) else ["InstanceNorm2d"]
    assert not unknown, f"{unknown} are none: adapt CONVOLUTION, INSTANCE_NORM, POOLING in fmcluster/capture/_compat.py"


def test_the_operations_of_a_forward_pass_are_seen() -> None:
    seen: list[bool] = []

    class Seen(compat.TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(compat.is_operation(func))
            return func(*args, **(kwargs or {}))

    with Seen():
        nn.functional.relu(torch.ones(2))
    assert seen, "no operation was seen"
    assert all(seen), (
        "torch.utils._python_dispatch.TorchDispatchMode or torch._ops.OpOverload is not what it was; the axes of what "
        "a model returns are followed by it: adapt is_operation in fmcluster/capture/_compat.py"
    )
    assert not compat.is_operation(torch.relu)


def test_a_loader_with_persistent_workers_gets_workers_of_its_own(needs: Callable[..., Any]) -> None:
    loader = DataLoader([1, 2], num_workers=1, persistent_workers=True)
    own = needs(
        compat.with_own_workers, loader, interface="DataLoader._iterator", used_for="leaving another's epoch alone"
    )
    assert own is not loader
    assert "_iterator" in vars(loader), "DataLoader keeps its persistent workers elsewhere than in _iterator"
    assert compat.with_own_workers(DataLoader([1])) is not None


def test_tensors_without_values_are_known() -> None:
    fake = pytest.importorskip("torch._subclasses.fake_tensor")
    with fake.FakeTensorMode():
        assert compat.is_fake(torch.ones(2)), (
            "FakeTensor has another name: adapt is_fake in fmcluster/capture/_compat.py"
        )
    assert not compat.is_fake(torch.ones(2))


def test_the_store_of_a_jobs_keys_is_found() -> None:
    assert callable(torch.distributed.distributed_c10d._get_default_store), (
        "torch.distributed.distributed_c10d._get_default_store is gone; ranks talk through it: adapt job_store in "
        "fmcluster/capture/_compat.py"
    )


def test_the_versions_it_was_checked_with_are_named() -> None:
    stated = inspect.getdoc(compat) or ""
    for package in ("torch", "pytorch-ignite"):
        minor = ".".join(version(package).split(".")[:2])
        assert f"{minor}." in stated, f"{package} {version(package)} is installed; run these tests and name it"


def test_tensors_inside_a_transformation_are_known(needs: Callable[..., Any]) -> None:
    ask = partial(
        needs,
        compat.is_transformed,
        interface="torch._C._functorch.is_functorch_wrapped_tensor",
        used_for="refusing to record inside vmap or grad",
    )
    seen: list[bool] = []
    vmap(lambda x: seen.append(ask(x)) or x)(torch.ones(3, 2))
    assert seen == [True], "torch._C._functorch.is_functorch_wrapped_tensor no longer knows what vmap hands on"
    assert not ask(torch.ones(3)), "torch._C._functorch.is_functorch_wrapped_tensor takes any tensor for a wrapped one"


def test_views_and_their_versions(needs: Callable[..., Any]) -> None:
    used_for = "noticing a view whose gradient cannot be seen"
    is_view = partial(needs, compat.is_view, interface="Tensor._is_view", used_for=used_for)
    version_of = partial(needs, compat.version_of, interface="Tensor._version", used_for=used_for)
    whole = torch.zeros(3, 2)
    view = whole[1:]
    assert (is_view(whole), is_view(view)) == (False, True), "Tensor._is_view no longer tells views from other tensors"
    before = version_of(view)
    whole.add_(1)
    assert version_of(view) == before + 1, "Tensor._version of a view no longer counts changes of what it is a view of"
    assert version_of(view.detach()) == before + 1, "Tensor._version is no longer shared with a detached tensor"


def test_a_modules_buffers_can_be_put_back(needs: Callable[..., Any]) -> None:
    module = nn.BatchNorm1d(2)
    buffers = needs(
        compat.buffers_of, module, interface="Module._buffers", used_for="leaving no trace on a model's buffers"
    )
    assert set(buffers) == {"running_mean", "running_var", "num_batches_tracked"}, (
        "Module._buffers no longer holds a module's own buffers by name"
    )
    buffers["running_mean"] = torch.full((2,), 7.0)
    assert module.running_mean is not None
    assert module.running_mean.tolist() == [7, 7], "changing Module._buffers no longer changes the module"


def test_a_compiled_model_gives_its_model_back(needs: Callable[..., Any]) -> None:
    model = nn.Linear(2, 2)
    ask = partial(
        needs, compat.uncompiled, interface="OptimizedModule._orig_mod", used_for="recording a compiled model"
    )
    assert ask(torch.compile(model, backend="eager")) is model, (
        "torch.compile no longer keeps the model under _orig_mod; hooks would be put on what does not fire: adapt "
        "uncompiled in fmcluster/capture/_compat.py"
    )
    assert ask(model) is model


def test_ignites_handlers_can_be_put_in_order(needs: Callable[..., Any]) -> None:
    engines = pytest.importorskip("ignite.engine")
    engine = engines.Engine(lambda _engine, _batch: None)
    called: list[str] = []
    for name in ("first", "second"):
        engine.add_event_handler(engines.Events.EPOCH_COMPLETED, lambda _engine, name=name: called.append(name))
    handlers = needs(
        compat.ignite_handlers,
        engine,
        engines.Events.EPOCH_COMPLETED,
        interface="Engine._event_handlers",
        used_for="closing a run before another handler raises",
    )
    assert len(handlers) == 2, "Engine._event_handlers no longer holds one entry per handler"
    handlers.insert(0, handlers.pop())
    engine.run([0], max_epochs=1)
    assert called == ["second", "first"], "the order of Engine._event_handlers is no longer that of the calls"


def test_what_has_changed_is_said(needs: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._C, "_current_graph_task_id")
    sentence = r"_current_graph_task_id is not what it was \(AttributeError.*recomputes needs it: adapt in_backward in "
    with pytest.raises(pytest.fail.Exception, match=sentence):
        test_a_backward_pass_is_noticed(needs)


def test_the_forward_method_of_a_cuda_graph_encloses_the_one_that_was_written() -> None:
    """As torch's own code has it; it is made on a CUDA device alone."""

    def within(code: CodeType) -> Iterator[CodeType]:
        yield code
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                yield from within(constant)

    found = [code for code in within(torch.cuda.make_graphed_callables.__code__) if "orig_fwd" in code.co_freevars]
    assert [code.co_name for code in found] == ["new_fwd"], (
        "torch.cuda.make_graphed_callables no longer keeps a module's own forward method as orig_fwd; modules inside a "
        "graph would not be recorded: adapt eagerly and is_graph in fmcluster/capture/_compat.py"
    )
    assert torch.cuda.make_graphed_callables.__module__ == "torch.cuda.graphs"
    assert not compat.is_graph(nn.ReLU().forward)
    assert not compat.is_graph(None)
