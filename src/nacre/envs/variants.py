"""The task families as the codes of other papers have them, where published numbers depend on the difference.

Each is a family of ours with other values; the first line of its docstring says how it differs. Names are <code>/<family>.
Where a code draws fresh tasks all the time, `sample_tasks` does; train_tasks and test_tasks are then a fixed sample.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nacre.envs.ant import AntDir, AntDir2D, AntGoal
from nacre.envs.cheetah import CheetahDir, CheetahVel
from nacre.envs.humanoid import HumanoidDir
from nacre.envs.rand_params import HopperParams, WalkerParams

Trial = ClassVar[tuple[int, int]]
Name = ClassVar[str]

# ---------------------------------------------------------------- MAML: cbfinn/maml_rl, rllab/envs/mujoco


@dataclass(frozen=True)
class MamlCheetahVel(CheetahVel):
    """Env steps of 0.01 s, speed of the mass centre, targets of 0-2 m/s; 40 test tasks.

    Finn et al. 2017, half_cheetah_env_rand.py: frame_skip 1, velocity and the last three numbers of the observation are
    those of the mass centre, reset noise N(0, 0.01) on qpos.
    """

    simulator: str = "rllab"
    max_speed: float = 2.0
    n_test: int = 40

    name: Name = "maml/cheetah-vel"
    trial: Trial = (2, 1)


@dataclass(frozen=True)
class MamlCheetahDir(CheetahDir):
    """Env steps of 0.01 s, speed of the mass centre (half_cheetah_env_rand_direc.py)."""

    simulator: str = "rllab"

    name: Name = "maml/cheetah-dir"
    trial: Trial = (2, 1)


# ---------------------------------------------------------------- ProMP: jonasrothfuss/ProMP 93ae339, envs/mujoco_envs


@dataclass(frozen=True)
class PrompCheetahVel(CheetahVel):
    """17 numbers observed: no torso position (half_cheetah_rand_vel.py)."""

    observation: str = "gymnasium"

    name: Name = "promp/cheetah-vel"
    trial: Trial = (2, 1)


@dataclass(frozen=True)
class PrompCheetahDir(CheetahDir):
    """17 numbers observed: no torso position; 100 env steps (half_cheetah_rand_direc.py)."""

    observation: str = "gymnasium"
    horizon: int = 100

    name: Name = "promp/cheetah-dir"
    trial: Trial = (2, 1)


@dataclass(frozen=True)
class PrompAntDir(AntDir):
    """111 numbers observed, contact forces among them; over below 0 m instead of 0.2 m (ant_rand_direc.py)."""

    observation: str = "contacts"
    lowest: float = 0.0

    name: Name = "promp/ant-dir"
    trial: Trial = (2, 1)


@dataclass(frozen=True)
class PrompAntDir2D(AntDir2D):
    """111 numbers observed, contact forces among them; over below 0 m instead of 0.2 m (ant_rand_direc_2d.py)."""

    observation: str = "contacts"
    lowest: float = 0.0

    name: Name = "promp/ant-dir-2d"
    trial: Trial = (2, 1)


@dataclass(frozen=True)
class PrompAntGoal(AntGoal):
    """PEARL's ant-goal, which was taken from here; one gradient step per trial (ant_rand_goal.py)."""

    name: Name = "promp/ant-goal"
    trial: Trial = (2, 1)


# ---------------------------------------------------------------- VariBAD: lmzintgraf/varibad 57e1795, environments/mujoco


@dataclass(frozen=True)
class VaribadCheetahVel(CheetahVel):
    """Trials of two episodes, both reported; fresh tasks."""

    name: Name = "varibad/cheetah-vel"
    trial: Trial = (2, 1)


@dataclass(frozen=True)
class VaribadCheetahDir(CheetahDir):
    """Trials of two episodes, both reported."""

    name: Name = "varibad/cheetah-dir"
    trial: Trial = (2, 1)


@dataclass(frozen=True)
class VaribadAntDir(AntDir):
    """As coded: the directions are -1 and +1 RADIAN, 115 degrees apart (ant_dir.py); trials of two episodes."""

    name: Name = "varibad/ant-dir"
    trial: Trial = (2, 1)
    angles: ClassVar[tuple[float, ...]] = (-1.0, 1.0)


@dataclass(frozen=True)
class VaribadAntDirAsWritten(AntDir):
    """As the paper says: forward and backward; trials of two episodes."""

    name: Name = "varibad/ant-dir-as-written"
    trial: Trial = (2, 1)


@dataclass(frozen=True)
class VaribadAntDir2D(AntDir2D):
    """As coded: the angle in rad is the first component of a unit vector, so within +-1 (ant_dir.py, AntDir2DEnv)."""

    name: Name = "varibad/ant-dir-2d"
    trial: Trial = (2, 1)

    def draw(self, rng: Any, n: int) -> np.ndarray:
        """n angles in rad: cosines of uniform angles."""
        angle = rng.uniform(0, 2 * np.pi, n)
        return angle.__array_namespace__().cos(angle).astype(np.float32)


@dataclass(frozen=True)
class VaribadAntDir2DAsWritten(AntDir2D):
    """As the paper says: any direction; trials of two episodes."""

    name: Name = "varibad/ant-dir-2d-as-written"
    trial: Trial = (2, 1)


@dataclass(frozen=True)
class VaribadAntGoal(AntGoal):
    """Trials of two episodes, both reported; fresh tasks (ant_goal.py)."""

    name: Name = "varibad/ant-goal"
    trial: Trial = (2, 1)


@dataclass(frozen=True)
class VaribadHumanoidDir(HumanoidDir):
    """Trials of two episodes, both reported; fresh tasks (humanoid_dir.py)."""

    name: Name = "varibad/humanoid-dir"
    trial: Trial = (2, 1)


@dataclass(frozen=True)
class VaribadWalkerParams(WalkerParams):
    """Trials of two episodes, both reported; fresh tasks (rand_param_envs/walker2d_rand_params.py)."""

    name: Name = "varibad/walker-params"
    trial: Trial = (2, 1)


@dataclass(frozen=True)
class VaribadHopperParams(HopperParams):
    """Trials of two episodes, both reported; fresh tasks (rand_param_envs/hopper_rand_params.py)."""

    name: Name = "varibad/hopper-params"
    trial: Trial = (2, 1)


# ---------------------------------------------------------------- MACAW: eric-mitchell/macaw 3dfd4f9, task pickles


def chosen(tasks: np.ndarray, test: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Training tasks and test tasks of a list, by the indices of the latter."""
    return np.delete(tasks, test, axis=0), tasks[list(test)]


def of_list(family: Any, rng: Any, n: int) -> np.ndarray:
    """n of the training tasks: there are no others, so that fresh ones are not those held out."""
    number = rng.uniform(0, len(family.train_tasks), n) // 1
    xp = number.__array_namespace__()
    return xp.asarray(family.train_tasks)[number.astype("int32")]


@dataclass(frozen=True)
class MacawCheetahVel(CheetahVel):
    """40 equally spaced speeds up to 3 m/s, five of them held out; one round of adaptation."""

    n_train: int = 35
    n_test: int = 5

    name: Name = "macaw/cheetah-vel"
    trial: Trial = (2, 1)

    def __post_init__(self):
        super().__post_init__()
        fixed_counts(self, 35, 5)
        if self.max_speed != 3.0:
            raise ValueError(
                f"{self.name}: its speeds are a fixed list up to 3 m/s, got max_speed={self.max_speed}; leave it out, or take "
                "cheetah-vel"
            )

    draw = of_list

    @property
    def _split(self) -> tuple[np.ndarray, np.ndarray]:
        return chosen(np.linspace(0.075, 3.0, 40).astype(np.float32), (2, 7, 15, 23, 26))


# rad, in the order of the pickles
MACAW_ANGLES = (
    1.2034, 0.4266, 4.9448, 4.1239, 4.0057, 3.6166, 0.2454, 2.2482, 5.9419, 0.3773, 5.4289, 5.5122, 0.3217, 4.0993, 3.4668,
    3.7543, 3.0381, 1.7781, 1.8707, 3.5281, 2.4884, 4.9556, 2.6294, 0.9042, 0.9482, 0.3471, 4.5116, 1.8367, 1.2489, 5.2236,
    3.5688, 0.5174, 3.4243, 0.9988, 4.2522, 0.7444, 2.7960, 5.5794, 5.0094, 0.4271, 6.0368, 4.1419, 4.5162, 4.6720, 5.5778,
    0.8416, 4.8819, 5.2653, 5.2107, 0.1832,
)  # fmt: skip


@dataclass(frozen=True)
class MacawAntDir(AntDir2D):
    """50 fixed directions, five of them held out; one round of adaptation."""

    n_train: int = 45
    n_test: int = 5

    name: Name = "macaw/ant-dir"
    trial: Trial = (2, 1)

    def __post_init__(self):
        super().__post_init__()
        fixed_counts(self, 45, 5)

    draw = of_list

    @property
    def _split(self) -> tuple[np.ndarray, np.ndarray]:
        return chosen(np.array(MACAW_ANGLES, np.float32), (6, 17, 23, 30, 41))


def fixed_counts(family: Any, n_train: int, n_test: int) -> None:
    """Raise ValueError where someone asks for other counts than the list has."""
    if (family.n_train, family.n_test) != (n_train, n_test):
        raise ValueError(
            f"{family.name}: its tasks are a fixed list of {n_train} to train on and {n_test} held out, got n_train="
            f"{family.n_train} and n_test={family.n_test}; leave both out, or take the family without macaw/"
        )
