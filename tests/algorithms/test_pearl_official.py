"""Three whole updates against the official code's (oyster 44e20fd), computed there in float64 on given weights, batches
and noise: tests/fixtures/pearl_update.npz."""

import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nacre import nn
from nacre.algorithms.pearl import PEARL, Config, Networks
from nacre.replay import Batch
from nacre.types import Box, EnvSpec
from nacre.updates import sac

FIXTURE = Path(__file__).parents[1] / "fixtures" / "pearl_update.npz"
OFFICIAL = np.load(FIXTURE, allow_pickle=False)
SIZES = json.loads(str(OFFICIAL["config"]))


@pytest.fixture
def float64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def algorithm() -> PEARL:
    spec = EnvSpec("official", SIZES["obs"], Box((-1.0,) * SIZES["action"], (1.0,) * SIZES["action"]), 10, True)
    config = Config(
        latent_size=SIZES["latent"], hidden=(SIZES["hidden"],) * 3, encoder_hidden=(SIZES["encoder_hidden"],) * 3,
        learning_rate=SIZES["lr"], discount=SIZES["discount"], target_rate=SIZES["tau"],
        reward_scale=SIZES["reward_scale"], kl_weight=SIZES["kl_lambda"], meta_batch=SIZES["tasks"],
        batch_size=SIZES["batch"], context_batch=SIZES["context"],
    )  # fmt: skip
    return PEARL(config, spec)


def mlp(when: str, name: str, template: nn.MLP) -> nn.MLP:
    """The official weights [out, in] of one network as ours [in, out]; two heads become one output layer."""
    weights, biases = [], []
    for layer in ("fc0", "fc1", "fc2", "last_fc"):
        weights.append(OFFICIAL[f"{when}/{name}/{layer}.weight"].T)
        biases.append(OFFICIAL[f"{when}/{name}/{layer}.bias"])
    if name == "policy":
        weights[-1] = np.concatenate([weights[-1], OFFICIAL[f"{when}/policy/last_fc_log_std.weight"].T], axis=1)
        biases[-1] = np.concatenate([biases[-1], OFFICIAL[f"{when}/policy/last_fc_log_std.bias"]])
    found = tuple(map(jnp.asarray, weights)), tuple(map(jnp.asarray, biases))
    fresh = eqx.tree_at(lambda net: (net.weights, net.biases), template, found)
    assert jax.tree.structure(fresh) == jax.tree.structure(template)
    return fresh


def networks(when: str, template: Networks) -> Networks:
    encoder = eqx.tree_at(lambda e: e.net, template.encoder, mlp(when, "encoder", template.encoder.net))
    policy = eqx.tree_at(lambda p: p.net, template.sac.policy, mlp(when, "policy", template.sac.policy.net))
    critics = (mlp(when, "q1", template.sac.critics[0]), mlp(when, "q2", template.sac.critics[1]))
    value, target = mlp(when, "v", template.sac.value), mlp(when, "target_v", template.sac.target)
    return Networks(encoder, sac.Networks(critics, value, target, policy, jnp.zeros(())))


def inputs(step: int):
    get = lambda name: jnp.asarray(OFFICIAL[f"step{step}/{name}"])  # noqa: E731
    flat = lambda x: x.reshape(-1, x.shape[-1])  # noqa: E731
    reward, terminal = flat(get("reward"))[:, 0], flat(get("terminal"))[:, 0]
    batch = Batch(flat(get("obs")), flat(get("action")), reward, reward, terminal, flat(get("next_obs")))
    context = get("context")
    noises = {"z": get("noise_z"), "action": flat(get("noise_action")), "next_action": None}
    return batch, (context, jnp.ones(context.shape[:2], bool)), noises


def run_three(dtype):
    pearl = algorithm()
    nets = jax.tree.map(lambda x: x.astype(dtype), networks("before", pearl.networks(jax.random.key(0))))
    optimisers = pearl.optimisers(nets)
    update = jax.jit(pearl.update)
    for step in range(3):
        batch, context, noises = jax.tree.map(lambda x: x if x.dtype == bool else x.astype(dtype), inputs(step))
        nets, optimisers, metrics = update(nets, optimisers, batch, context, noises)
        ours = [metrics["kl/posterior"] * SIZES["tasks"]] + [
            metrics[f"loss/{k}"] for k in ("critic", "value", "policy")
        ]
        yield nets, networks(f"after{step + 1}", nets), np.array(ours), OFFICIAL["losses"][step]


def pairs(nets: Networks, official: Networks):
    """Every parameter with the official one, by its path."""
    for (path, ours), theirs in zip(jax.tree.leaves_with_path(nets), jax.tree.leaves(official), strict=True):
        if "log_alpha" not in jax.tree_util.keystr(path):
            yield jax.tree_util.keystr(path), ours, theirs


def test_three_updates_equal_the_official_ones_in_float64(float64):
    for nets, official, losses, official_losses in run_three(jnp.float64):
        np.testing.assert_allclose(losses, official_losses, rtol=0, atol=1e-9)
        for name, ours, theirs in pairs(nets, official):
            assert ours.dtype == jnp.float64
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9, err_msg=name)


def test_three_updates_in_float32():
    for nets, official, losses, official_losses in run_three(jnp.float32):
        np.testing.assert_allclose(losses, official_losses, rtol=1e-4)
        for name, ours, theirs in pairs(nets, official):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4, err_msg=name)
