"""A policy's memory as one file, so that an agent in the field keeps what it knows of its task when the machine is switched off."""

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from nacre import _checkpoints
from nacre._errors import UserError
from nacre._files import whole_file


def fingerprint(params: Any) -> str:
    """Of an agent's parameters, their names and shapes included."""
    return f"{zlib.crc32(json.dumps(_checkpoints.describe(_checkpoints.to_host(params)), sort_keys=True).encode()):08x}"


def write(path: str | Path, tree: Any, record: dict[str, Any]) -> None:
    """The tree's arrays and a record, whole or not at all. Raises OSError where that is impossible."""
    arrays = _checkpoints.to_host(tree)
    told = json.dumps({**record, "arrays": _checkpoints.describe(arrays)})
    with whole_file(Path(path), durable=True) as file:  # a file, since numpy would add its own ending to a name
        np.savez(file, record=np.array(told), **arrays)


def read(path: str | Path, identity: dict[str, str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tree's arrays by name (for _checkpoints.from_host) and the record. identity: what the record must say of the agent.

    Raises UserError for a file that is missing, damaged, or another agent's.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        record = json.loads(str(arrays.pop("record")))
        unharmed = _checkpoints.describe(arrays) == record.pop("arrays")
    except FileNotFoundError:
        raise UserError(f"there is no file {path}; policy.save({str(path)!r}) writes one") from None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is not a file of policy.save, or is damaged ({error})") from error
    if not unharmed:
        raise UserError(f"{path} is damaged: its numbers are not those that were saved")
    other = [
        f"{name} {record.get(name)} where {value} is expected"
        for name, value in identity.items()
        if record.get(name) != value
    ]
    if other:
        raise UserError(
            f"{path} is the memory of another agent ({'; '.join(other)}); load the run and checkpoint that it was saved with"
        )
    return arrays, record
