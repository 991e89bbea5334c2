"""Checkpoint files: what torch saved, or safetensors, read without running code from them."""

import os
from pathlib import Path

import torch


def read_checkpoint(path: str | os.PathLike[str]) -> object:
    """Read a checkpoint to the host's memory; which kind of file it is, its bytes tell.

    Parameters
    ----------
    path : path-like
        A file of ``torch.save``, or of safetensors, which the extra ``fmcluster[safetensors]`` reads.

    Returns
    -------
    object
        What was saved: of safetensors, a dict of str to Tensor.

    Raises
    ------
    ValueError
        Where it is not such a file, or holds more than weights and plain data. The message begins with "cannot".
    ImportError
        Where it is of safetensors, which is not installed.
    OSError
        Where it cannot be opened.
    """
    file = Path(path)
    try:
        if _is_safetensors(file):
            try:
                from safetensors.torch import load_file
            except ImportError as error:
                raise ImportError(
                    f"{file} is a file of safetensors, which cannot be imported ({error}): pip install "
                    f"'fmcluster[safetensors]'"
                ) from error
            return load_file(file)
        with file.open("rb") as opened:  # of a path, torch looks at the suffix
            return torch.load(opened, map_location="cpu", weights_only=True)
    except (OSError, ImportError, MemoryError):
        raise
    except Exception as error:  # what is raised depends on the bytes of a foreign or damaged file
        raise ValueError(
            f"cannot be read as weights ({_reason(error)}); expected a file of torch.save(model.state_dict(), PATH), "
            f"or of safetensors. Of a file that you trust, load it and save, or pass, its state dict"
        ) from error


def _reason(error: Exception) -> str:
    """Return what is wrong with a file, without torch's advice, which is to trust it."""
    text = str(error)
    lines = text.partition("WeightsUnpickler error:")[2].split("\n") + text.split("\n")
    first = next((line.strip() for line in lines if line.strip()), type(error).__name__)
    return first.partition(". ")[0].rstrip(".")


def _is_safetensors(file: Path) -> bool:
    """Whether a file begins as they do: with the length of a header, eight bytes, and the header, which is JSON."""
    with file.open("rb") as opened:
        return opened.read(9)[8:] == b"{"
