"""Nacre: meta-reinforcement learning. An agent is a policy with a memory, which adapts to tasks it has never seen.

    agent = nacre.train("pearl", "cheetah-vel", seed=0)        # or nacre.load("runs/...")
    result = nacre.evaluate(agent, episodes=3)                 # return per test task and shot, with intervals
    env = nacre.make("cheetah-vel", task=1.5)                  # a family's task as a gymnasium environment
    agent.adapt(env, episodes=3)                               # adapt to any environment with the same spaces

Names are imported when they are first used, so that `import nacre` costs nothing.
"""

import sys as _sys
from importlib import import_module as _import_module
from types import ModuleType as _ModuleType
from typing import TYPE_CHECKING as _TYPE_CHECKING

from nacre import _platform
from nacre._errors import RunError, UserError

if _TYPE_CHECKING:
    from nacre.agent import load
    from nacre.algorithms.registry import list_algorithms
    from nacre.envs.as_gymnasium import make
    from nacre.envs.backends.gymnasium import family
    from nacre.envs.check_env import check_env
    from nacre.envs.registry import list_families, make_family
    from nacre.evaluate import evaluate
    from nacre.runs import open_run
    from nacre.train import resume, train

__version__ = "0.1.0"

_platform.set_flags()

# public name -> module:object
_PUBLIC = {
    "train": "nacre.train:train",
    "resume": "nacre.train:resume",
    "load": "nacre.agent:load",
    "evaluate": "nacre.evaluate:evaluate",
    "make": "nacre.envs.as_gymnasium:make",
    "family": "nacre.envs.backends.gymnasium:family",
    "make_family": "nacre.envs.registry:make_family",
    "check_env": "nacre.envs.check_env:check_env",
    "list_families": "nacre.envs.registry:list_families",
    "list_algorithms": "nacre.algorithms.registry:list_algorithms",
    "open_run": "nacre.runs:open_run",
}
__all__ = [
    "RunError", "UserError", "__version__", "check_env", "evaluate", "family", "list_algorithms", "list_families",
    "load", "make", "make_family", "open_run", "resume", "train",
]  # fmt: skip


_CALLABLE = ("evaluate", "train")  # both a module and a function: nacre.train(...) calls the module nacre.train


class _Callable(_ModuleType):
    def __call__(self, *args, **kwargs):
        module, _, function = _PUBLIC[self.__name__.rpartition(".")[2]].partition(":")
        return getattr(_import_module(module), function)(*args, **kwargs)


class _Package(_ModuleType):
    def __setattr__(self, name, value):
        if isinstance(value, _ModuleType) and name in _CALLABLE:
            value.__class__ = _Callable
            value.__wrapped__ = vars(value)[name]  # for help() and signatures
        super().__setattr__(name, value)


_sys.modules[__name__].__class__ = _Package


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'nacre' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    if name in _CALLABLE:
        return _import_module(f"nacre.{name}")
    return getattr(_import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*__all__, *globals()})
