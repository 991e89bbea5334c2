"""Plans as data: files and back, schedules, and models that they are not for."""

import copy
import importlib.util
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fmcluster.decide import Action, MeasuredDamage, Plan
from fmcluster.decide._costs import Costs
from fmcluster.decide._price import Seconds

UNKNOWN = MeasuredDamage(0.01, 0.001, 0.019, 0.2)
BEFORE, AFTER = Costs(1e6, 2e6, 300.0, 1e5), Costs(0.5e6, 1 / 3, 300.0, 1e5)


def action(kind: str, module: str, **more) -> Action:
    return Action(kind, (module,), f"{kind} it", UNKNOWN, Costs(1.0, 2.0, 3.0, 1 / 3), **more)


@pytest.fixture
def plan() -> Plan:
    actions = (
        Action("freeze", ("stem", "bn"), "from the start on", UNKNOWN, epoch=0),
        action("narrow", "block1.conv1", how="l1", keep=(0, 1, 5), width=8, consumer="block1.conv2"),
        action("kernel", "block2.conv1", setting=1, by_prediction=0.25),
        replace(action("shorten", "block2.conv2"), saves=Costs(1.0, 2.0, 3.0, -1.0)),  # as where more is kept
    )
    seconds = (Seconds(0.2, 0.1, 0.3), Seconds(0.1, 0.05, 0.2))
    return Plan(actions, "compute", 0.5, 0.02, BEFORE, AFTER, True, UNKNOWN, 100, seconds, 32)


def test_a_plan_is_the_same_after_a_file(plan: Plan, tmp_path: Path) -> None:
    path = plan.to_yaml(tmp_path / "plan.yaml")
    again = Plan.from_yaml(path)
    assert again == plan
    assert again.apply  # a plan that is as good as the first
    bare = replace(plan, together=None, seconds=None, budget=None, batch=0)
    assert Plan.from_yaml(bare.to_yaml(path)) == bare
    assert str(again) == str(plan)
    no_null = MeasuredDamage(0.01, 0.001, 0.019)
    frozen = Action("freeze", ("stem", "bn"), "from the start on", no_null, epoch=0)
    without = replace(plan, actions=(frozen,), together=no_null)
    again = Plan.from_yaml(without.to_yaml(tmp_path / "without.yaml"))
    assert again == without
    assert hash(again.actions) == hash(without.actions)
    assert no_null not in (replace(no_null, null=0.0), replace(no_null, mean=0.02))
    assert path.read_text().startswith("format: fmcluster plan, version 1\n")


def test_the_table_says_by_what_a_change_was_ranked_and_only_where_one_was(plan: Plan) -> None:
    _, header, _, _, kernel, shorten, *notes = str(plan).splitlines()
    cells = [re.split(" {2,}", line.strip()) for line in (header, kernel, shorten)]
    at = cells[0].index("ranked as")
    assert cells[0][at - 1] == "damage (95 %)"
    assert [row[at] for row in cells[1:]] == ["0.2500", "-"]
    assert {len(row) for row in cells} == {10}
    assert notes[0] == "Damage in nats, before any retraining; shares are what each saves alone."
    assert notes[1].startswith("ranked as: the measured damage, of all changes of its kind, that has the rank")
    unranked = replace(plan, actions=tuple(replace(each, by_prediction=None) for each in plan.actions))
    assert "ranked as" not in str(unranked)
    assert unranked.summed == plan.summed


@pytest.mark.slow
def test_a_file_gives_the_same_network(plan: Plan, residual, probe: TensorDataset, tmp_path: Path) -> None:
    again = Plan.from_yaml(plan.to_yaml(tmp_path / "plan.yaml"))
    built, other = (each.apply(residual, probe=probe) for each in (plan, again))
    assert built.block1.conv1.weight.shape == (3, 8, 3, 3)
    assert built.block2.conv1.weight.shape == (16, 8, 1, 1)
    assert not built.stem.weight.requires_grad
    with torch.no_grad():
        images = probe.tensors[0]
        assert torch.equal(built.eval()(images), other.eval()(images))
    state = copy.deepcopy(built.state_dict())
    other.load_state_dict(state)
    timed = again.with_seconds(residual, probe=probe, rounds=1)
    assert timed.batch == 24
    assert timed.seconds[1].median > 0


def test_a_batch_that_is_too_small_to_be_timed_is_refused_in_words(plan: Plan, probe: TensorDataset) -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 5))
    plan = replace(plan, actions=())
    with pytest.raises(ValueError, match="a step of a batch of 1 cannot be timed"):
        plan.with_seconds(model, probe=DataLoader(probe, batch_size=1))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda c: c.update(format="another"), "is no plan: expected a file that begins with 'format: fmcluster plan"),
        (lambda c: c.update(of="watts"), "of is 'watts'; expected one of compute"),
        (lambda c: c.update(of=["compute"]), r"of is \['compute'\]; expected one of compute"),
        (lambda c: c.update(budget=5), r"plan\.yaml: budget is 5\.0; expected a share that may be left"),
        (lambda c: c.update(tolerance=-1), r"plan\.yaml: tolerance is -1\.0; expected nats of loss, at least 0"),
        (lambda c: c.update(built="yes"), "built is 'yes'; expected true or false"),
        (lambda c: c.update(n_samples=2.5), r"n_samples is 2\.5; expected an integer of at least 0"),
        (lambda c: c.update(batch=-32), "batch is -32; expected an integer of at least 0"),
        (lambda c: c["before"].update(forward=-1), "before: forward is -1; expected a number of at least 0"),
        (lambda c: c["actions"][1].pop("consumer"), "action 2: consumer is missing; expected the module that reads"),
        (lambda c: c["actions"][2].pop("setting"), "action 3: setting is None; expected an integer of at least 1"),
        (lambda c: c["actions"][2].update(setting=0), "action 3: setting is 0; expected an integer of at least 1"),
        (lambda c: c.update(more=1), "has a field 'more' that no plan has"),
        (lambda c: c.update(budget="half"), "budget is 'half'; expected a finite number"),
        (
            lambda c: c.update(before={"forward": 1}),
            "before: expected a mapping of forward, backward, parameters, kept",
        ),
        (lambda c: c.update(actions={}), "actions is a dict; expected a list"),
        (lambda c: c.update(caveat=["x"]), r"caveat is \['x'\]; expected words"),
        (lambda c: c.update(seconds=[1, 2]), r"seconds is \[1, 2\]; expected two of median"),
        (lambda c: c["actions"].append("kernel"), "action 5 is a str; expected a mapping"),
        (lambda c: c["actions"][2].update(kind="grow"), "action 3: kind is 'grow'; expected one of freeze"),
        (lambda c: c["actions"][2].update(size=3), "action 3 has 'size'; expected any of kind"),
        (lambda c: c["actions"][2].update(modules=[]), "modules is .*; expected a list of names"),
        (lambda c: c["actions"][2].update(modules=["a", "b"]), "kernel has 2 modules; expected one"),
        (lambda c: c["actions"][2].update(setting=True), "setting is True; expected an integer"),
        (lambda c: c["actions"][2].update(what=3), "what is 3; expected words"),
        (lambda c: c["actions"][2].update(damage=0.1), "damage is 0.1; expected mean, lower, upper, null"),
        (lambda c: c["actions"][2].update(by_prediction="low"), "by_prediction is 'low'; expected a finite number"),
        (lambda c: c["actions"][1].update(keep=[5, 1]), r"keep is \[5, 1\]; expected channels in ascending order"),
        (lambda c: c["actions"][1].update(keep=[5, 9]), "expected the channels to keep, all below its width 8"),
        (
            lambda c: c["actions"].append(c["actions"][2] | {"kind": "groups"}),
            r"plan\.yaml: .* cannot be built together",
        ),
    ],
)
def test_a_file_is_checked_field_by_field(change, text: str, plan: Plan, tmp_path: Path) -> None:
    path = plan.to_yaml(tmp_path / "plan.yaml")
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(ValueError, match=text):
        Plan.from_yaml(path)


BOMB = "\n".join(
    ["a: &a [x, x, x]", *(f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in pairwise("abcdefghi"))]
)
MERGED = "\n".join(
    ["a: &a {x: 1}", *(f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 9)}]}}" for old, new in pairwise("abcdefghi"))]
)


@pytest.mark.parametrize(
    "content",
    [BOMB, MERGED, "a: &a [*a]", f"a: {'1' * 5000}", "a: 2026-13-45", "[" * 5000, "? {a: 1}\n: 2"],
    ids=["aliases", "merges", "itself", "digits", "date", "depth", "key"],
)
def test_a_small_file_that_stands_for_much_or_for_nothing_is_refused_at_once(content: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match="cannot be read as YAML of plain data"):
        Plan.from_yaml(path)


@pytest.mark.parametrize("number", [".inf", ".nan", "-.inf", f"{10**400}", "true"])
def test_a_number_that_is_none_is_refused(number: str, plan: Plan, tmp_path: Path) -> None:
    path = plan.to_yaml(tmp_path / "plan.yaml")
    text = path.read_text()
    path.write_text(re.sub(r"(?m)^budget: .*$", f"budget: {number}", text))
    assert path.read_text() != text
    with pytest.raises(ValueError, match=r"budget is .*; expected a finite number"):
        Plan.from_yaml(path)


def test_a_plan_that_cannot_be_written_leaves_the_old_one_whole(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = plan.to_yaml(tmp_path / "plan.yaml")
    before = path.read_bytes()

    def full(self: Path, text: str, *_: object) -> int:
        self.write_bytes(text.encode()[:50])
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        plan.to_yaml(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", ["!!python/object/apply:os.system ['touch run']", "a: [", "\x00", "- 1", ""])
def test_a_file_runs_no_code(content: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "plan.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"plan\.yaml"):
        Plan.from_yaml(path)
    assert not Path("run").exists()


def test_models_that_a_plan_is_not_for(plan: Plan, residual, plain, probe: TensorDataset) -> None:
    built = plan.apply(residual, probe=probe)
    frozen = replace(plan, actions=plan.actions[:1])
    for one in (plan, frozen):
        with pytest.raises(ValueError, match="was applied to the model already"):
            one.apply(copy.deepcopy(one.apply(residual, probe=probe)), probe=probe)
    narrow = replace(plan, actions=plan.actions[1:2])
    with pytest.raises(ValueError, match=r"is a Conv2d of 3 channels, and the plan keeps 3 of 8"):
        narrow.apply(built, probe=probe)
    with pytest.raises(KeyError, match="has no module 'stem': the plan was made for another model"):
        plan.apply(plain, probe=probe)
    later = replace(plan, actions=(replace(frozen.actions[0], epoch=2),))
    with pytest.raises(KeyError, match="has no module 'stem'"):
        later.apply(plain)  # and not two epochs later
    with pytest.raises(KeyError, match="has no module 'stem'"):
        later.freeze(plain, epoch=2)
    assert later.freeze(plain, epoch=1) == []
    inside = Action("freeze", ("block2.conv2", "bn"), "from epoch 2 on", UNKNOWN, epoch=2)
    shortened = replace(plan, actions=(action("shorten", "block2.conv2"), inside))
    assert shortened.freeze(shortened.apply(residual, probe=probe), epoch=2) == ["bn"]
    with pytest.raises(ValueError, match="pass probe=, the images that the damage was measured on"):
        plan.apply(residual)
    assert not frozen.apply(residual).stem.weight.requires_grad  # freezing needs none
    with pytest.raises(ValueError, match="the model is compiled; apply the plan to the module under it"):
        plan.apply(torch.compile(residual), probe=probe)
    with pytest.raises(ValueError, match=r"pass model\.module, on one device"):
        plan.apply(nn.DataParallel(residual), probe=probe)
    with pytest.raises(TypeError, match=r"model is a dict; expected a torch\.nn\.Module"):
        plan.apply({}, probe=probe)
    with pytest.raises(ValueError, match="read from a file: pass probe="):
        plan.with_seconds(residual)


def test_without_the_extra_it_is_named(plan: Plan, residual, probe: TensorDataset, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch_pruning", None)
    with pytest.raises(ImportError, match=r"pip install 'fmcluster\[plan\]'"):
        plan.apply(residual, probe=probe)
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    with pytest.raises(ImportError, match=r"pip install 'fmcluster\[plan\]'"):
        plan.to_yaml(tmp_path / "plan.yaml")


def test_a_schedule_of_finetuning_scheduler(plan: Plan, residual, probe: TensorDataset, tmp_path: Path) -> None:
    """Phases by number, each with the names of the parameters that it trains; those in no phase stay frozen."""
    built = plan.apply(residual, probe=probe)
    path = plan.to_schedule(tmp_path / "schedule.yaml", model=built)
    (phase,) = yaml.safe_load(path.read_text()).items()
    assert phase == (0, {"params": [name for name, each in built.named_parameters() if each.requires_grad]})
    assert "stem.weight" not in phase[1]["params"]
    holder = nn.ModuleDict({"metric": nn.Linear(1, 1), "net": built})  # as a LightningModule holds what it trains
    held = yaml.safe_load(plan.to_schedule(tmp_path / "held.yaml", model=holder).read_text())[0]["params"]
    assert held == ["metric.weight", "metric.bias", *(f"net.{name}" for name in phase[1]["params"])]
    with pytest.raises(ValueError, match="the model has no module 'stem'"):
        plan.to_schedule(path, model=nn.Linear(1, 1))
    with pytest.raises(ValueError, match="freezes all of the model"):
        plan.to_schedule(path, model=nn.ModuleDict({"stem": nn.Linear(1, 1), "bn": nn.BatchNorm1d(1)}))
    if importlib.util.find_spec("finetuning_scheduler"):  # reads it as its own
        from finetuning_scheduler import FinetuningScheduler

        assert FinetuningScheduler.load_yaml_schedule(path) == dict([phase])
