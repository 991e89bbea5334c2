"""What is built answers as the change that was measured: of every kind of action, and of several together."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

import fmcluster as fm
from fmcluster.capture import ModelInputs
from fmcluster.decide import Depth, Groups, KernelSize, Network, Plan, Resolution, Separable, Width
from fmcluster.decide._action import Action, MeasuredDamage
from fmcluster.decide._candidates import action_of
from fmcluster.decide._costs import Costs
from fmcluster.decide._cross_fit import in_first_half
from fmcluster.decide.building import LowResolution, build
from fmcluster.decide.interventions import Replaced

UNKNOWN = MeasuredDamage(0.0, 0.0, 0.0)
INTERVENTIONS = {
    "depth": Depth(),
    "folded": Width(shares=(0.25, 0.5)),
    "mean": Width(shares=(0.5,), rankings=("l1",), fold=False),
    "kernel": KernelSize(),
    "separable": Separable(),
    "groups": Groups(counts=(2, 4)),
    "resolution": Resolution(),
}


class Odd(nn.Module):
    """Convolutions of unusual geometry: an even kernel, none padded, in words, a dilation, groups, strides, 1 x 1."""

    def __init__(self) -> None:
        super().__init__()
        self.even = nn.Conv2d(3, 8, 4, padding=1)
        self.bare = nn.Conv2d(8, 8, 3)
        self.same = nn.Conv2d(8, 8, 5, padding="same", bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.dilated = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=2)
        self.strided = nn.Conv2d(8, 12, (3, 5), stride=(2, 1), padding=(1, 2))
        self.point = nn.Conv2d(12, 12, 1)
        self.head = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores of four classes."""
        x = functional.pad(x, [1, 2, 1, 2])
        x = functional.relu(self.bare(functional.relu(self.even(x))))
        x = functional.relu(self.norm(self.same(x)))
        x = functional.silu(self.strided(functional.relu_(self.dilated(x))))
        return self.head(functional.relu(self.point(x)).mean((2, 3)))


@pytest.fixture
def odd() -> nn.Module:
    torch.manual_seed(4)
    model = Odd()
    for parameter in model.parameters():
        parameter.data *= 2  # so that answers differ
    return model


def network(model: nn.Module, images: torch.Tensor) -> Network:
    return Network(model.eval(), [ModelInputs((images[:13],)), ModelInputs((images[13:],))], loss=None)


def actions(of: Network, intervention) -> list:
    """Return pairs of what is measured, fitted on all images, and what is built."""
    found = []
    for change in intervention.changes(of, None):
        if hasattr(change, "saves"):
            row = {name: getattr(change, name) for name in ("intervention", "layer", "what", "how", "channels")}
            shares = dict.fromkeys(("forward_share", "backward_share", "parameters_share", "kept_share"), 0.0)
            numbers = dict.fromkeys(("loss", "loss_se", "null_loss"), 0.0)
            row |= {"setting": change.setting, "consumer": change.consumer} | shares | numbers
            found.append((change.fit(of) if change.fit else change, action_of(row, costs=Costs())))
    return found


@pytest.mark.parametrize("name", INTERVENTIONS)
@pytest.mark.parametrize("of", ["residual", "plain", "odd"])
def test_what_is_built_answers_as_what_was_measured(name, of, probe: TensorDataset, request) -> None:
    model = request.getfixturevalue(of)
    images = probe.tensors[0]
    seen = network(model, images)
    state = copy.deepcopy(model.state_dict())
    pairs = actions(seen, INTERVENTIONS[name])
    assert pairs or (name, of) == ("depth", "plain")
    for change, action in pairs:
        built = build(model, [action], network=seen)
        assert built is not model
        with torch.no_grad():
            outputs = built(images)
        expected = [
            seen.changed_outputs(number, weights=change.weights, inputs=change.inputs, outputs=change.outputs)
            for number in range(2)
        ]
        torch.testing.assert_close(
            outputs, torch.cat(expected), rtol=1e-4, atol=2e-5, msg=lambda text, of=action: f"{of}: {text}"
        )
        assert not torch.allclose(outputs, model(images), atol=1e-5) or name == "depth"
        check_it_lives(built, images, outputs)
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["folded", "kernel", "separable", "groups"])
@pytest.mark.parametrize("of", ["residual", "odd"])
def test_what_is_built_on_one_half_does_to_the_other_what_ablation_says(
    name, of, probe: TensorDataset, request
) -> None:
    model = request.getfixturevalue(of).eval()
    images, labels = probe.tensors
    damage = fm.ablate(model, probe, interventions=[INTERVENTIONS[name]], n_null=0, random_state=3)
    assert len(damage.frame)
    first = in_first_half(labels, random_state=3)
    with torch.no_grad():
        before = model(images).double()
    for row in damage.frame.to_dict("records"):
        action = action_of(row, costs=Costs(**damage.costs))
        after = torch.zeros_like(before)
        for half in (first, ~first):
            fitted_on = Network(model, [ModelInputs((images[~half],))], loss=None)
            with torch.no_grad():
                after[half] = build(model, [action], network=fitted_on)(images[half]).double()
        losses = [functional.cross_entropy(each, labels, reduction="none") for each in (after, before)]
        divergence = functional.kl_div(after.log_softmax(1), before.softmax(1), reduction="none").sum(1)
        for what, values in (("loss", losses[0] - losses[1]), ("kl", divergence)):
            assert row[what] == pytest.approx(float(values.mean()), rel=1e-3, abs=2e-5), action
            assert row[f"{what}_se"] == pytest.approx(float(values.std()) / 24**0.5, rel=1e-3, abs=2e-5), action


def check_it_lives(built: nn.Module, images: torch.Tensor, outputs: torch.Tensor) -> None:
    """Copies, pickles and state dicts give the same answers; and it can be trained."""
    pickled = io.BytesIO()
    torch.save(built, pickled)
    pickled.seek(0)
    for other in (copy.deepcopy(built), torch.load(pickled, weights_only=False), pickle.loads(pickle.dumps(built))):
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.zero_()
        other.load_state_dict(built.state_dict())
        with torch.no_grad():
            torch.testing.assert_close(other(images), outputs, rtol=0, atol=0)
    other.train()
    optimizer = torch.optim.SGD(other.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        losses.append(functional.cross_entropy(other(images), torch.arange(len(images)) % 4))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", INTERVENTIONS)
def test_building_leaves_no_trace(name: str, training: bool, residual, probe: TensorDataset) -> None:
    """Neither in the network, its mode, its hooks and its gradients, nor in the random state."""
    residual.train(training)
    residual.stem.register_forward_hook(lambda *_: None)
    residual.bn.weight.requires_grad_(False)
    residual(probe.tensors[0]).sum().backward()
    _, action = actions(network(copy.deepcopy(residual), probe.tensors[0]), INTERVENTIONS[name])[0]

    def all_of_it() -> list[object]:
        out: list[object] = [[each.training, list(each._forward_hooks), sorted(vars(each))] for each in modules]
        out += [
            [each.requires_grad, None if each.grad is None else each.grad.tolist()] for each in residual.parameters()
        ]
        return [*out, *(each.tolist() for each in residual.state_dict().values()), torch.get_rng_state().tolist()]

    modules = list(residual.modules())
    before = all_of_it()
    built = Plan((action,), "compute", None, 1.0, Costs(1, 1, 1, 1), Costs(1, 1, 1, 1)).apply(residual, probe=probe)
    assert all_of_it() == before
    assert modules == list(residual.modules())
    assert not {each.data_ptr() for each in built.parameters()} & {each.data_ptr() for each in residual.parameters()}


@pytest.mark.slow
def test_a_network_that_is_built_smaller_is_smaller(residual, odd, probe: TensorDataset) -> None:
    """What is saved is what was promised, but for the bias that a fold may add."""
    images = probe.tensors[0]
    for model in (residual, odd):
        seen = network(model, images)
        for name in ("depth", "folded", "kernel", "groups", "resolution"):
            for change, action in actions(seen, INTERVENTIONS[name]):
                now = network(build(model, [action], network=seen), images).costs
                what = f"{name}: {action}"
                assert seen.costs.forward - now.forward == pytest.approx(change.saves.forward, rel=1e-6), what
                added = model.get_submodule(action.consumer).weight.shape[0] if action.consumer else 0
                saved = seen.costs.parameters - now.parameters + added
                assert saved >= change.saves.parameters * 0.9, what


@pytest.mark.slow
def test_several_actions_at_once_are_fitted_one_after_the_other(residual, probe: TensorDataset) -> None:
    """Kernels by NumPy's least squares to what the layers returned; width as in the network with these kernels."""
    images = probe.tensors[0]
    seen = network(residual, images)
    (_, narrow), *_ = actions(seen, Width(shares=(0.5,)))
    kernels = {action.module: (change, action) for change, action in actions(seen, KernelSize(sizes=(1,)))}
    assert narrow.module == "block1.conv1"
    assert narrow.consumer == "block1.conv2"
    names = ["stem", "block1.conv1", "block1.conv2"]
    smaller = build(residual, [kernels[each][1] for each in reversed(names)], network=seen)
    now = network(smaller, images)
    farther = 0.0
    for name in names:
        module, old = smaller.get_submodule(name), residual.get_submodule(name)
        given = torch.cat([now.given(name, number) for number in range(2)])
        before = torch.cat([seen.given(name, number) for number in range(2)])
        with torch.no_grad():
            returned, left = old(before), module(given)
            alone = functional.conv2d(
                given, kernels[name][0].weights[f"{name}.weight"], old.bias, old.stride, old.padding
            )
        bias = 0 if old.bias is None else old.bias.detach()[:, None, None]
        rows = given[:, :, :: old.stride[0], :: old.stride[1]].movedim(1, -1).flatten(0, 2).double().numpy()
        aim = (returned - bias).movedim(1, -1).flatten(0, 2).double().numpy()
        weight = np.linalg.lstsq(rows, aim, rcond=None)[0].T
        np.testing.assert_allclose(module.weight.detach()[:, :, 0, 0].numpy(), weight, rtol=1e-3, atol=1e-4)
        gained = float((alone - returned).square().sum() - (left - returned).square().sum())
        assert gained >= -1e-3
        farther += gained
    assert farther > 0.1  # what is fitted to the network as it was does worse, but for the first

    built = build(residual, [narrow, *(kernels[each][1] for each in names)], network=seen)
    removed = torch.tensor(narrow.removed)
    replaced = Replaced(*now.moments("block1.conv2"), removed=removed, fold=True)
    inputs = {"block1.conv2": replaced}
    expected = torch.cat([now.changed_outputs(number, weights={}, inputs=inputs, outputs={}) for number in range(2)])
    with torch.no_grad():
        torch.testing.assert_close(built(images), expected, rtol=1e-4, atol=2e-5)
    assert built.block1.conv1.weight.shape == (4, 8, 1, 1)
    assert built.block1.conv2.weight.shape == (8, 4, 1, 1)


def test_other_sizes_of_images_go_through_a_lower_resolution(odd) -> None:
    """Also those that the factor does not divide: the shape is that of the convolution."""
    from fmcluster.capture import kernel_geometry

    for module in (odd.even, odd.strided, odd.same):
        low = LowResolution(nn.Conv2d(1, 1, 1), kernel=kernel_geometry(module), factor=2)
        low.convolution = nn.Conv2d(module.in_channels, module.out_channels, module.kernel_size, stride=2)
        low.convolution.stride = tuple(2 * each for each in module.stride)
        images = torch.randn(2, module.in_channels, 13, 11)
        assert low(images).shape == module(images).shape


def test_refused_by_name(residual, plain, probe: TensorDataset) -> None:
    images = probe.tensors[0]
    seen = network(residual, images)

    def refused(action: Action, of: Network = seen) -> str:
        with pytest.raises((ValueError, KeyError)) as caught:
            build(of.model, [action], network=of)
        return str(caught.value)

    assert "has no module 'block9'" in refused(Action("shorten", ("block9",), "", UNKNOWN))
    assert "block1.bn1 is a BatchNorm2d; expected a plain Conv2d" in refused(
        Action("kernel", ("block1.bn1",), "", UNKNOWN, setting=1)
    )
    assert "its kernel is 1 x 1" in refused(Action("kernel", ("block2.shortcut",), "", UNKNOWN, setting=1))
    assert "the setting None" in refused(Action("separable", ("stem",), "", UNKNOWN))
    for count in (3, 10**15):
        assert f"makes 8 channels of 8, which are not all divisible into {count} groups" in refused(
            Action("groups", ("block1.conv1",), "", UNKNOWN, setting=count)
        )
    side = seen.facts["stem"].returned[1]
    assert build(residual, [Action("resolution", ("stem",), "", UNKNOWN, setting=side)], network=seen)
    for factor in (side + 1, 10**15):
        assert f"stem returns feature maps of {side} positions a side, fewer than the {factor}" in refused(
            Action("resolution", ("stem",), "", UNKNOWN, setting=factor)
        )
    narrow = {"keep": (0, 1), "consumer": "block1.conv2"}
    assert "is a Conv2d of 8 channels, and the plan keeps 2 of 16" in refused(
        Action("narrow", ("block1.conv1",), "", UNKNOWN, width=16, **narrow)
    )
    assert "tied to others" in refused(Action("narrow", ("stem",), "", UNKNOWN, width=8, **narrow))
    assert "head makes (5,) of (16,), and has no residual branch" in refused(Action("shorten", ("head",), "", UNKNOWN))
    with pytest.raises(ValueError, match="is fitted to what its layers are given: pass probe="):
        build(residual, [Action("kernel", ("stem",), "", UNKNOWN, setting=1)], network=None)
    both = [Action("kernel", ("stem",), "a", UNKNOWN, setting=1), Action("separable", ("stem",), "b", UNKNOWN)]
    with pytest.raises(ValueError, match="holds 'kernel stem: a' and 'separable stem: b', which cannot be built"):
        build(residual, both, network=seen)
    inside = [Action("shorten", ("block1",), "a", UNKNOWN), Action("kernel", ("block1.conv1",), "b", UNKNOWN)]
    with pytest.raises(ValueError, match="cannot be built together"):
        build(residual, inside, network=seen)


def test_a_weight_that_two_layers_share_is_refitted_for_neither() -> None:
    model = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1, bias=False) for _ in range(4))).eval()
    model[2].weight = model[0].weight
    seen = network(model, torch.randn(8, 3, 6, 6))
    narrow = Action("narrow", ("1",), "", UNKNOWN, consumer="2", keep=(0, 1), width=3)
    for action, said in [
        (Action("kernel", ("0",), "", UNKNOWN, setting=1), "0 has a parameter that 2 has, too"),
        (narrow, "2 has a parameter that 0 has, too"),
    ]:
        with pytest.raises(ValueError, match=said):
            build(model, [action], network=seen)
    built = build(model, [Action("kernel", ("1",), "", UNKNOWN, setting=1)], network=seen)
    assert built[1].kernel_size == (1, 1)
    assert built[0].weight is built[2].weight
