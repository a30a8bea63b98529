"""The meta-policy gradient's configuration per benchmark. `paper`: what the paper says, on gymnasium's pendulum and half-cheetah.
`fast`: ours."""

from nacre.types import EnvSpec

PAPER = {"pendulum": 100_000, "half-cheetah": 1_000_000}  # env steps, ours
FAST = {"far-goal": dict(updates_per_iteration=50, env_steps=30_000), "pendulum": dict(env_steps=20_000)}


def preset(name: str, family: str, spec: EnvSpec) -> dict:
    """Values of Config and of the training loop. Raises ValueError where there is no such preset."""
    if name not in ("fast", "paper"):
        raise ValueError(f"unknown preset {name!r}: expected fast or paper")
    if name == "paper":
        if family not in PAPER:
            raise ValueError(f"teacher's paper has no {family}; it has {', '.join(PAPER)}. Use the preset fast")
        return dict(env_steps=PAPER[family], eval_repetitions=10 if spec.jittable else 1)
    # A lesson is short where episodes are, and the teacher's steps are large, since there are few of them.
    return dict(
        teacher_steps=min(100, spec.horizon), student_steps=min(200, spec.horizon), before="same-starts", trial_updates=20,
        teacher_std=0.7, teacher_rate=1e-2, policy_rate=1e-3, env_steps=100_000, eval_repetitions=10 if spec.jittable else 1,
    ) | FAST.get(family, {})  # fmt: skip
