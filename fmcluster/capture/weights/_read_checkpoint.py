"""Checkpoint files: what torch saved, or safetensors, read without running code from them."""

import os
import re
import warnings
import zipfile
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
        _check_whole(file)
        with file.open("rb") as opened, warnings.catch_warnings():  # of a path, torch looks at the suffix
            warnings.simplefilter("ignore")  # of other pickle protocols: what cannot be read is said in an error
            return torch.load(opened, map_location="cpu", weights_only=True)
    except (OSError, ImportError, MemoryError):
        raise
    except Exception as error:  # what is raised depends on the bytes of a foreign or damaged file
        raise ValueError(
            f"cannot be read as weights ({_reason(error)}); expected a file of torch.save(model.state_dict(), PATH), "
            f"or of safetensors. Of a file that you trust, load it and save, or pass, its state dict"
        ) from error


def _check_whole(file: Path) -> None:
    """Compare an archive's files with their checksums, which torch does not; some have none.

    Raises
    ------
    ValueError
        Where one differs: its weights would be read as others.
    """
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            members = [each for each in archive.infolist() if each.compress_type == zipfile.ZIP_STORED and each.CRC]
            if sum(each.file_size for each in members) > file.stat().st_size:
                raise ValueError("its files would be larger together than it is")
            for member in members:
                with archive.open(member) as opened:
                    while opened.read(1 << 20):  # raises at its end
                        pass


def _reason(error: Exception) -> str:
    """Return what is wrong with a file, without what else torch says of how it may be read."""
    text = str(error)
    if found := re.search(r"unsupported global:? GLOBAL (\S+)", text, flags=re.IGNORECASE):
        return f"it holds {found[1]}, which is code"
    if found := re.search(r"WeightsUnpickler error:\s*(.+)", text):
        return found[1].rstrip(". ")
    first = (text.splitlines() or [""])[0].partition(" In PyTorch")[0].rstrip(".")
    return first if re.search(r"[a-z]{3}", first) else f"{type(error).__name__} {first}".strip()


def _is_safetensors(file: Path) -> bool:
    """Whether a file begins as they do: with the length of a header, eight bytes, and the header, which is JSON."""
    with file.open("rb") as opened:
        return opened.read(9)[8:] == b"{"
