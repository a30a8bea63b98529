"""Objects in files of the user's own, `path/file.py:name`: task families and algorithms."""

import difflib
import functools
import importlib.util
import sys
import traceback
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

from nacre._errors import told


def is_file(name: str) -> bool:
    """Whether the name means a user's file rather than something registered."""
    return ".py:" in name or name.endswith(".py")


def parts(name: str) -> tuple[Path, str]:
    """The file of `path/file.py:name`, and the name in it, '' where there is none."""
    file, _, attribute = name.rpartition(":") if ".py:" in name else (name, "", "")
    return Path(file).expanduser(), attribute


def absolute(name: str) -> str:
    """file.py:name with the whole path, so that a resume finds it from anywhere; other names as they are."""
    if not is_file(name):
        return name
    path, attribute = parts(name)
    return f"{path.resolve()}:{attribute}" if attribute else str(path.resolve())


def load_from_file(name: str, kind: str = "task family") -> Any:
    """The object `path/file.py:name`; the file is executed, once as long as it does not change. kind: what it is, for errors."""
    path, attribute = parts(name)
    if not path.is_file():
        near = [str(other) for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise ValueError(f"{kind} {name!r}: there is no file {path}.{close_matches(str(path), near)}")
    if not attribute:
        raise ValueError(f"{kind} {name!r}: say which object of the file is the {kind.split()[-1]}, as {path}:name")
    try:
        stat = path.stat()
        module = executed(path.resolve(), stat.st_mtime_ns, stat.st_size)
    except Exception as error:
        raise of_file(name, kind, error) from error
    if not hasattr(module, attribute):
        public = [key for key in vars(module) if not key.startswith("_")]
        raise ValueError(f"{kind} {name!r}: {path} has no object {attribute!r}.{close_matches(attribute, public)}")
    return getattr(module, attribute)


def of_file(name: str, kind: str, error: Exception) -> ValueError:
    """What the code of `path/file.py:name` raised, and in which of its lines."""
    path, _ = parts(name)
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == path.resolve()]
    where = [f"line {line}" for line in lines[-1:]]
    return ValueError(f"{kind} {name!r}: {path} raised {told(error, *where)}")


@functools.lru_cache(maxsize=32)
def executed(path: Path, mtime: int, size: int) -> ModuleType:
    """The file as a module; mtime and size: of what it was when it was read."""
    module_name = f"nacre_user_{path.stem}_{zlib.crc32(str(path).encode()):08x}"
    source = importlib.util.spec_from_file_location(module_name, path)
    module = importlib.util.module_from_spec(source)
    sys.modules[module_name] = module  # dataclasses look their module up there
    if (beside := str(path.parent)) not in sys.path:
        sys.path.append(beside)  # what it imports may lie next to it, as for a script
    source.loader.exec_module(module)
    return module


def close_matches(name: str, known: list[str]) -> str:
    """' Did you mean a or b?' or ''."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(close)}?" if close else ""
