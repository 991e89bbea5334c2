"""The `plan` command: what a network needs, measured, and a list of what to do about it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._app import say, say_left_out, status, step_progress
from ._options import LAYERS_HELP, RandomState, RunPath, local_output

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.data import Dataset

    from ..store import Run

COSTS = ("compute", "forward", "backward", "memory", "parameters")
QUESTIONS = ("depth", "width", "kernel", "separable", "groups", "resolution", "freeze")


def plan(
    run: RunPath,
    model: Annotated[str, typer.Option(help="The torchvision ResNet that was recorded.")] = "resnet18",
    weights: Annotated[
        str | None,
        typer.Option(help="Path of the model's state dict; by default the run's last weights, where it has them."),
    ] = None,
    budget: Annotated[float | None, typer.Option(help="Which share of the costs may remain, such as 0.5.")] = None,
    of: Annotated[str, typer.Option(help=f"Which costs the budget is a share of: {', '.join(COSTS)}.")] = "compute",
    tolerance: Annotated[
        float | None, typer.Option(help="By how much the loss may grow, in nats; 0.02 where there is no budget.")
    ] = None,
    questions: Annotated[
        list[str] | None,
        typer.Option("--question", help=f"What to measure: {', '.join(QUESTIONS)}; may be repeated. All by default."),
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option("--layer", help=LAYERS_HELP + "Modules of the network, recorded or not; all by default."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder with train/ and val/; by default the run's images.")] = None,
    images: Annotated[int, typer.Option(min=4, help="How many images to measure on, at most.")] = 100,
    random_state: RandomState = 0,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", callback=local_output, help="Where to write the plan, as YAML.")
    ] = None,
) -> None:
    """Plan what to freeze and what to shrink. Measures what the network needs, and prints the plan as a table."""
    from ..store import open_run

    asked = list(questions or QUESTIONS)
    if unknown := [each for each in asked if each not in QUESTIONS]:
        raise ValueError(f"there is no question {unknown[0]!r}; expected any of {', '.join(QUESTIONS)}")
    if of not in COSTS:
        raise ValueError(f"--of is {of!r}; expected one of {', '.join(COSTS)}")
    if budget is not None and not 0 < budget <= 1:
        raise ValueError(f"--budget is {budget}; expected a share that may be left, over 0 and at most 1")
    if tolerance is not None and tolerance < 0:
        raise ValueError(f"--tolerance is {tolerance}; expected nats of loss, at least 0")
    if output is not None and not output.parent.is_dir():
        raise FileNotFoundError(f"cannot write {output}: there is no folder {output.parent}")
    opened = open_run(run)
    opened.resolve(snapshot=0)
    with status("loading the network and the images"):
        network, probe = _network(opened, model, weights), _probe(opened, data, images, random_state)
    with step_progress("measuring") as on_change:
        from ..analysis import diagnose
        from ..decide import ablate
        from ..decide import plan as make_plan

        damage = ablate(
            network,
            probe,
            interventions=_interventions(opened, asked),
            layers=_modules(network, layers),
            random_state=random_state,
            progress=on_change,
        )
    with status("diagnosing the run"):
        findings = diagnose(opened, damage=damage, random_state=random_state)
        say_left_out(findings.not_finite.lines)
    with status("planning: networks are built and measured"):
        goal: dict[str, Any] = {"budget": budget, "of": of, "tolerance": tolerance}
        try:
            made = make_plan(findings, damage, **goal, model=network, probe=probe, random_state=random_state)
        except ValueError:
            say(str(damage))  # it took minutes to measure, and says which budget to ask for instead
            raise
    say(str(made))
    if output is not None:
        say(f"Saved in {made.to_yaml(output)}. Next: fmcluster train DATA --plan {output}")


def _interventions(run: "Run", asked: list[str]) -> list[Any]:
    from ..decide import Depth, Groups, KernelSize, Resolution, Rewind, Separable, Width

    kinds = {"depth": Depth, "width": Width, "kernel": KernelSize, "separable": Separable}
    kinds |= {"groups": Groups, "resolution": Resolution}
    made: list[Any] = [kinds[each]() for each in dict.fromkeys(asked) if each in kinds]
    if "freeze" in asked and run.weight_names and len(run.epochs) > 1:
        made.append(Rewind.of(run, epochs=run.epochs[:-1]))
    elif asked == ["freeze"]:
        raise ValueError(f"{run.path} holds no weights of several epochs, by which layers that may be frozen are found")
    return made


def _modules(network: "nn.Module", patterns: list[str] | None) -> list[str] | None:
    """Return the modules that patterns match, whose * and ? stop at dots; None where there are no patterns."""
    if not patterns:
        return None
    from ..store import layer_expression

    expressions = [layer_expression(pattern) for pattern in patterns]
    names = [name for name, _ in network.named_modules() if name]
    found = [name for name in names if any(each.fullmatch(name) for each in expressions)]
    if not found:
        raise ValueError(f"no module of the network matches {', '.join(patterns)}; it has {', '.join(names[:10])}, ...")
    return found


def _network(run: "Run", model: str, weights: str | None) -> "nn.Module":
    """Return the network in evaluation mode, with as many outputs as the run has classes."""
    from ..recipes import load_resnet

    if weights is None and not run.weight_names:
        raise ValueError(f"{run.path} holds no weights: pass --weights with the path of the network's state dict")
    n_classes = len(run.classes) or int(run.samples["label"].max()) + 1
    network = load_resnet(model, weights=weights or "none", n_classes=n_classes)
    if weights is None:
        run.load_weights(network, snapshot=len(run) - 1)
    return network.eval()


def _probe(run: "Run", data: Path | None, images: int, random_state: int) -> "Dataset[Any]":
    from torch.utils.data import Subset

    from ..recipes import RecordedImages, load_image_folder

    if data is None:
        recorded = RecordedImages(run.samples)
        step = max(1, len(recorded) / images)
        return Subset(recorded, [int(number * step) for number in range(min(images, len(recorded)))])
    found = load_image_folder(data)
    if len(found.probe) <= images:  # type: ignore[arg-type]  # an ImageFolder
        return found.probe
    return load_image_folder(data, probe_size=images, random_state=random_state).probe
