import subprocess
import sys

import pytest

from fmcluster import plot


def test_importing_loads_no_matplotlib():
    code = "import sys, fmcluster.plot; print('matplotlib' in sys.modules, 'seaborn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("name", sorted(plot.__all__))
def test_every_name_is_a_function_of_at_most_two_positional_parameters(name):
    import inspect

    parameters = inspect.signature(getattr(plot, name)).parameters.values()
    assert sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters) <= 2
    assert not any(p.kind is p.VAR_KEYWORD for p in parameters)


@pytest.mark.slow
def test_no_store_is_loaded_by_drawing():
    code = (
        "import sys, fmcluster.plot as p; [getattr(p, n) for n in p.__all__]; print('zarr' in sys.modules, "
        "'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
