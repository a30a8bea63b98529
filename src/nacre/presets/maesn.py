"""MAESN's configuration per benchmark. `paper`: the official code's (maesn_suite: launchers, released hyper-parameters), also on
the sparse point robot, for which PEARL's authors ran that code. `fast`: ours."""

from nacre.types import EnvSpec

ITERATIONS, TASKS, EPISODES = 500, 20, 50
# The official meta-test takes 100 steps whose sizes halve from the third on: after ten, all further ones together are 1 % of alpha.
TEST_STEPS = 10
PAPER = ("wheeled-robot", "block-push", "ant-ring", "sparse-point-robot")
# Clipped Adam steps, a quarter of the trust region's time; inner steps on what meta-test has, by natural gradients and from where
# the training tasks' latents lie, without which a third of a half circle is never searched.
FAST = dict(
    outer="ppo", learning_rate=3e-3, latent_learning_rate=3e-2, initial_std=0.5, inner_rate=2.0, natural=True, inner_reward="seen",
    start="tasks", kl_weight=0.03, test_steps=4, later_rate=1.0, episodes_per_step=40,
)  # fmt: skip

# Bodies learn to move first. Until then the sparse reward says nothing, so that inner steps by it would only scatter the latents,
# and Adam's steps on their raw observations leave the trust region.
FAST_BODY = FAST | dict(
    outer="trpo", trust_region=0.02, inner_rate=1.0, inner_reward="train", episodes_per_step=10, env_steps=30_000_000,
)  # fmt: skip


def preset(name: str, family: str, spec: EnvSpec) -> dict:
    """Values of Config and of the training loop. Raises ValueError where there is no such preset."""
    if name not in ("fast", "paper"):
        raise ValueError(f"unknown preset {name!r}: expected fast or paper")
    if name == "paper" and family not in PAPER:
        raise ValueError(f"maesn's paper has no {family}; it has {', '.join(PAPER)}. Use the preset fast")
    if name == "paper":
        # each step of meta-test on 10,000 env steps of a body, as officially
        rounds = EPISODES if family == "sparse-point-robot" else 10_000 // spec.horizon
        return dict(
            test_steps=TEST_STEPS,
            test_episodes_per_step=rounds,
            env_steps=ITERATIONS * TASKS * EPISODES * 2 * spec.horizon,
        )
    body = (family in PAPER and family != "sparse-point-robot") or not spec.jittable  # jittable with --backend mjx
    return dict(FAST_BODY) if body else FAST | dict(env_steps=16_000_000)
