"""The notebooks run as they were committed, and what was committed is what they say."""

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "notebooks"
NAMES = ["01_capture", "02_cluster", "03_evolution", "04_decide"]
DECIDES = "04_decide"
OF_THE_DEMO = {"02_cluster", "03_evolution"}
MACHINE_PATHS = re.compile(r"(?<![\w.:/])/(tmp|work|home|root|Users|var|private)/\S*|\b[A-Z]:\\\S+")
LARGEST = 400_000
# Alone on 2 cores each takes about a minute. A busy machine takes several times that, so what ends the test is a cell
# that hangs.
SECONDS_PER_CELL = 600


def committed(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def kinds(notebook: Any) -> list[list[str]]:
    """Of each cell, what it shows: pictures and values; what was printed in pieces counts once."""
    shown = []
    for cell in code_cells(notebook):
        found = {output.name if output.output_type == "stream" else sorted(output.data)[-1] for output in cell.outputs}
        found |= {kind for output in cell.outputs for kind in output.get("data", {}) if kind.startswith("image/")}
        shown.append(sorted(found))
    return shown


def text_of(output: Any) -> str:
    """What a reader sees of an output as text; a picture's base64 is none."""
    if output.output_type == "stream":
        return str(output.text)
    return "\n".join(str(value) for kind, value in output.get("data", {}).items() if kind.startswith("text/"))


def test_every_notebook_is_known_here():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_notebook_was_run_from_top_to_bottom_and_shows_pictures(name):
    notebook = committed(name)
    nbformat.validate(notebook)
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))
    n_pictures = sum("image/jpeg" in output.get("data", {}) for output in outputs(notebook))
    assert n_pictures >= 2
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_notebook_shows_no_warning_no_error_and_nothing_of_the_machine_it_ran_on(name):
    notebook = committed(name)
    found = outputs(notebook)
    assert [output for output in found if output.output_type == "error" or output.get("name") == "stderr"] == []
    texts = [text_of(output) for output in found] + [cell.source for cell in notebook.cells]
    assert [hit.group() for text in texts for hit in MACHINE_PATHS.finditer(text)] == []
    assert not [text for text in texts if "Warning:" in text or "\r" in text]
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert {key for cell in notebook.cells for key in cell.metadata} <= {"execution"}  # when it ran, no more


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_notebook_is_small_enough_to_be_read_on_a_web_page(name):
    assert (FOLDER / f"{name}.ipynb").stat().st_size < LARGEST


@pytest.mark.parametrize("name", NAMES)
def test_links_in_a_notebook_lead_somewhere(name):
    links = [
        link
        for cell in committed(name).cells
        if cell.cell_type == "markdown"
        for link in re.findall(r"\]\(([^)#]+)", cell.source) + re.findall(r"`(\d\d_\w+\.ipynb)`", cell.source)
    ]
    assert [link for link in links if "://" not in link and not (FOLDER / link).exists()] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_in_a_fresh_kernel_and_shows_what_was_committed(name, tmp_path, monkeypatch, request):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    if name in OF_THE_DEMO:
        (tmp_path / "demo").symlink_to(request.getfixturevalue("whole_demo"), target_is_directory=True)
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks", target_is_directory=True)
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # of the kernel; recordings end with the test
    before = committed(name)
    notebook = committed(name)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    settings = {"metadata": {"path": str(folder)}}
    if name == DECIDES:
        notebook.cells.append(nbformat.v4.new_code_cell(NUMBERS))
    NotebookClient(
        notebook, kernel_name="python3", timeout=SECONDS_PER_CELL, resources=settings, record_timing=False
    ).execute()
    if name == DECIDES:
        found = json.loads("".join(text_of(output) for output in code_cells(notebook)[-1].outputs))
        *cells, _ = code_cells(notebook)
        assert_the_verdict_follows_from_the_numbers(said_by(cells, "def verdict("), found)
        assert_arms_are_compared_truly(said_by(cells, 'sentence(tuned, "as advised")'), "as advised", found["tuned"])
        assert_arms_are_compared_truly(said_by(cells, 'sentence(proof, "plan")'), "plan", measured_arms())
        notebook.cells.pop()
    assert [cell.source for cell in notebook.cells] == [cell.source for cell in before.cells]
    assert [output for output in outputs(notebook) if output.output_type == "error"] == []
    assert kinds(notebook) == kinds(before)
    assert not list(folder.iterdir())


def test_the_committed_proof_is_that_of_the_results_as_they_are():
    cells = code_cells(committed(DECIDES))
    assert_arms_are_compared_truly(said_by(cells, 'sentence(proof, "plan")'), "plan", measured_arms())
    assert ROOT.joinpath("docs", "proof.md").exists()  # where the notebook sends its reader


def measured_arms() -> list[tuple[str, int, str, float]]:
    rows = json.loads((ROOT / "benchmarks/results/decide.json").read_text())["tune"]
    return [
        (row["task"], row["seed"], row["arm"].replace("full", "everything"), 100 * row["accuracy"])
        for row in rows
        if row["arm"] != "as it is"
    ]


def said_by(cells: list[Any], source: str) -> str:
    """What the cell with that in its code printed, on one line."""
    (cell,) = [each for each in cells if source in each.source]
    return " ".join(" ".join(text_of(output) for output in cell.outputs).split())


def assert_arms_are_compared_truly(said: str, arm: str, rows: list[tuple[str, int, str, float]]) -> None:
    """Which arms are near the best, and by how much one is over training everything, by NumPy alone."""
    tasks, arms = (list(dict.fromkeys(row[column] for row in rows)) for column in (0, 2))
    seeds = sorted({row[1] for row in rows})
    table = {(task, seed, name): accuracy for task, seed, name, accuracy in rows}
    means = np.array([[np.mean([table[task, seed, name] for seed in seeds]) for task in tasks] for name in arms])
    near = dict(zip(arms, (means >= means.max(axis=0) - 1).sum(axis=1), strict=True))
    others = [each for each in arms if each != arm]
    best = max(near[each] for each in others)
    assert f"'{arm}' is within a point of the best arm in {near[arm]} of {len(tasks)} tasks" in said
    found = re.search(r"of the other arms the best \('(.+?)'\) in (\d+)\.", said)
    assert found
    assert (near[found[1]], int(found[2])) == (best, best)
    for task in tasks:
        over = np.array([table[task, seed, arm] - table[task, seed, "everything"] for seed in seeds])
        assert f"{task} {over.mean():+.1f} ± {over.std(ddof=1) / np.sqrt(len(over)):.1f}" in said
    assert f"mean over {len(seeds)} seeds" in said


def assert_the_verdict_follows_from_the_numbers(said: str, found: dict[str, Any]) -> None:
    """Whether the smaller network is better differs from machine to machine; what is said of it has to follow."""
    before, after = (np.array(found[name]) for name in ("before", "after"))
    share = found["costs_after"] / found["costs_before"]
    assert 0 < share <= 1
    assert f"from {found['costs_before'] / 1e6:.1f} to {found['costs_after'] / 1e6:.1f} million" in said
    assert f"({share:.0%})" in said
    assert f"from {before.mean():.1%} to {after.mean():.1%} accuracy on {len(before)} held-out images" in said
    assert all(f"{kind} {module}" in said for kind, module in found["actions"])
    # Agresti and Min: half an image more in each cell of the table of two paired answers
    differences = np.concatenate([after - before, [1, -1, 0, 0]])
    weights = np.concatenate([np.ones(len(before)), np.full(4, 0.5)])
    middle = np.average(differences, weights=weights)
    error = np.sqrt(np.average((differences - middle) ** 2, weights=weights) / weights.sum())
    low, high = 100 * (middle - 1.96 * error), 100 * (middle + 1.96 * error)
    assert f"{100 * (after - before).mean():+.1f} points (95 % interval {low:+.1f} to {high:+.1f})" in said
    assert ("more of them correctly" in said) == (low > 0)
    assert ("fewer of them correctly" in said) == (high < 0)
    assert ("no evidence" in said) == (low <= 0 <= high)


NUMBERS = """
import json

print(json.dumps({
    "before": [int(each) for each in correct_before],
    "after": [int(each) for each in correct_after],
    "costs_before": plan.before.forward + plan.before.backward,
    "costs_after": plan.after.forward + plan.after.backward,
    "tuned": tuned[["task", "seed", "arm", "accuracy"]].to_numpy().tolist(),
    "actions": [(action.kind, action.module) for action in plan.actions],
}))
"""
