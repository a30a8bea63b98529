"""docs/figures/bodies.png: the bodies of the MuJoCo families, each after a second of random torques. Needs OpenGL.

MUJOCO_GL=egl python benchmarks/bodies_figure.py docs/figures/bodies.png
"""

import sys

import jax
import numpy as np
from PIL import Image

from nacre.envs.backends.mujoco import render_frames
from nacre.envs.registry import make_family

FAMILIES = {"cheetah-vel": 0.8, "ant-goal": 0.4, "humanoid-dir": 0.3, "walker-params": 0.2, "hopper-params": 0.2}
WIDTH, HEIGHT = 300, 300


def pose(name: str, size: float) -> np.ndarray:
    """Some env steps into an episode, with torques of `size` of the bounds: still upright."""
    env = make_family(name, record_qpos=True)
    state, _ = env.reset(jax.random.key(0), env.train_tasks[:1])
    rng, high = np.random.default_rng(3), np.array(env.spec.action.high)
    for _ in range(20 if name == "cheetah-vel" else 12):
        state, out = env.step(state, size * rng.uniform(-high, high, (1, len(high))), np.ones(1, bool))
    return render_frames(env, out.info["qpos"], WIDTH, HEIGHT)[0]


def main() -> None:
    pictures = [Image.fromarray(pose(name, size)) for name, size in FAMILIES.items()]
    whole = Image.new("RGB", (len(pictures) * (WIDTH + 6) - 6, HEIGHT), "white")
    for k, picture in enumerate(pictures):
        whole.paste(picture, (k * (WIDTH + 6), 0))
    whole.quantize(128).save(sys.argv[1], optimize=True)


if __name__ == "__main__":
    main()
