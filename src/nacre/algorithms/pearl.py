"""PEARL: Rakelly, Zhou, Quillen, Finn & Levine 2019 (arXiv:1903.08254), Algorithm 1 (meta-training) and 2 (meta-test).

  L1   replay B^i for each training task; networks encoder q(z|c), actor pi(a|s,z), critics Q(s,a,z), V(s,z)
  L2   while not done:
  L3     for a few tasks i: forget the recent context of i
  L4       collect episodes with z ~ r(z) = N(0, I); they are context and RL data
  L5       collect episodes with z ~ q(z|c), c from the recent context; RL data (posterior_steps: context, too)
  L6     for each gradient step, on a meta-batch of tasks:
  L7       context c^i from the recent data, RL batch b^i from all data of task i
  L8       z ~ q(z|c^i);  critic loss L_Q(b^i, z), KL loss beta KL(q(z|c^i) || r(z)), summed over tasks
  L9       encoder, Q <- gradient of L_Q + KL;  V <- L_V(b^i, sg z);  V' follows V;  pi <- L_pi(b^i, sg z)
  L10  meta-test: act with z ~ r(z) for the first episodes, afterwards with z ~ q(z|c) given all context so far

Update order, gradient routing, coefficients and initialisation are the official code's (docs/algorithms/pearl.md lists where
paper and code differ). SAC itself is in nacre.updates.sac.
"""

import dataclasses
import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array

from nacre import nn, replay, rollout
from nacre._checks import require
from nacre.distributions import Gaussian
from nacre.replay import Batch, Replay
from nacre.types import Environment, EnvSpec, Metric, Trajectory, Transition, take_tasks, task_count
from nacre.updates import latent, sac
from nacre.updates.latent import Memory, renew


@dataclass(frozen=True)
class Config:
    """Bare defaults are the paper's for cheetah-vel (oyster configs/default.json and configs/cheetah-vel.json)."""

    latent_size: int = 5  # dimensions of z
    hidden: tuple[int, ...] = (300, 300, 300)  # layers of actor and critics
    encoder_hidden: tuple[int, ...] = (200, 200, 200)  # layers of the encoder
    learning_rate: float = 3e-4  # Adam, all networks
    decay_updates: int = 0  # the learning rate falls linearly to a twentieth by this gradient step (ours); 0: constant
    decay_from: int = 0  # ... from this one
    discount: float = 0.99  # gamma
    target_rate: float = 0.005  # tau, each gradient step
    reward_scale: float = 5.0  # multiplies the reward in the Bellman target only; 1 / temperature
    kl_weight: float = 0.1  # beta, on the KL summed over the meta-batch and latent dimensions
    policy_mean_weight: float = 1e-3  # regulariser mean(mu^2) of the actor
    policy_std_weight: float = 1e-3  # regulariser mean(log_std^2) of the actor
    meta_batch: int = 16  # tasks per gradient step, drawn with replacement
    batch_size: int = 256  # RL transitions per task
    context_batch: int = 100  # context transitions per task
    initial_steps: int = 2000  # env steps per training task before the first gradient step
    # held: one random action per initial episode, or one random distribution over discrete actions (ours)
    initial_exploration: Literal["policy", "held"] = "policy"
    initial_updates: int = 0  # gradient steps on the initial data beyond those of an iteration (ours)
    tasks_per_iteration: int = 5  # tasks that collect, drawn with replacement
    prior_steps: int = 400  # env steps per collecting task with prior z: context and RL data
    posterior_steps: int = 0  # with posterior z: context and RL data
    extra_steps: int = 600  # with posterior z: RL data only
    lead_prior: bool = True  # the first episode of each posterior phase still acts on a prior z, as the official code
    updates_per_iteration: int = 2000  # gradient steps
    updates_per_slice: int = 100  # gradient steps per dispatch
    exploration_episodes: int = 2  # episodes of a trial that act on the prior (num_exp_traj_eval)
    # deterministic: z is a point estimate, prior z = 0; factors, draws and how much evidence counts have no say in it
    latent: Literal["gaussian", "deterministic"] = "gaussian"
    # precision: the encoder gives precisions and the prior is a factor, too, so that q = r(z) where nothing informs, whatever the
    # size of the context (ours); matrix: the same with factors that are not diagonal, so that a transition can tell one
    # combination of z's dimensions (ours)
    factors: Literal["variance", "precision", "matrix"] = "variance"
    # spread: successive z of a trial are quasi-random, each one a draw from its posterior, together without gaps and repeats
    # (ours)
    draws: Literal["random", "spread"] = "random"
    # tasks: where nothing is known, act on z from the posteriors of all training tasks together; the KL term does not make them
    # N(0, I) (ours)
    prior: Literal["normal", "tasks"] = "normal"
    encoder: Literal["mlp", "gru"] = "mlp"  # gru: a recurrent encoder over the context in order of time
    bottleneck: bool = True  # False: no KL term
    # buffer: all data of the task; rl_batch: the critic's batch
    context_source: Literal["recent", "buffer", "rl_batch"] = "recent"
    context_pieces: int = 0  # the context is 1 to so many stretches of transitions (ours); 0: single ones
    # in a gradient step a context counts as up to so many transitions, a random number, as contexts grow in a trial (ours); 0: as
    # many as it has
    context_reach: int = 0
    trial_evidence: float = 1.0  # how often a transition of a trial counts: they are not independent (ours)
    context_next_obs: bool = False  # the encoder sees s' as well
    normalise_obs: bool = False  # networks see (s - mean) / std over all that was collected (ours)
    critic: Literal["value", "twin"] = "value"  # value: V with target V; twin: target copies of both Q (modern SAC)
    critic_norm: bool = False  # layer normalisation in the critics (ours)
    temperature: float = 1.0  # alpha, or where it starts
    learn_temperature: bool = False  # modern SAC: keep the entropy at target_entropy
    target_entropy: float | None = None  # nats; None: minus the number of action dimensions (discrete: 0.3 log n)

    def __post_init__(self):
        require(
            self,
            positive="latent_size learning_rate reward_scale meta_batch batch_size context_batch initial_steps "
                     "tasks_per_iteration prior_steps updates_per_iteration updates_per_slice temperature trial_evidence",
            not_negative="decay_updates decay_from context_reach context_pieces initial_updates posterior_steps extra_steps "
                         "exploration_episodes kl_weight policy_mean_weight policy_std_weight",
            fraction="discount target_rate",
            layers="hidden encoder_hidden",
        )  # fmt: skip
        if self.decay_from and self.decay_from >= self.decay_updates:
            raise ValueError(f"decay_from ({self.decay_from}) must be below decay_updates ({self.decay_updates})")
        if self.updates_per_iteration % self.updates_per_slice:
            raise ValueError(
                f"updates_per_slice ({self.updates_per_slice}) must divide updates_per_iteration "
                f"({self.updates_per_iteration})"
            )
        if self.encoder == "gru" and self.context_source == "rl_batch":
            raise ValueError(
                "a gru encoder needs an ordered context: use context_source recent or buffer, not rl_batch"
            )
        sums = {"context_reach": 0, "trial_evidence": 1.0, "context_pieces": 0}
        if self.encoder == "gru" and any(getattr(self, name) != value for name, value in sums.items()):
            raise ValueError(f"a gru encoder does not multiply factors of transitions: leave alone {', '.join(sums)}")
        if self.context_pieces and self.context_source == "rl_batch":
            raise ValueError("the critic's batch has no stretches: with context_source rl_batch, set context_pieces 0")
        if self.context_pieces and self.context_batch % self.context_pieces:
            raise ValueError(f"context_pieces ({self.context_pieces}) must divide context_batch ({self.context_batch})")


# ------------------------------------------------------------------------------------------------------ networks


class Networks(eqx.Module):
    """All that gradients train, and the targets that follow."""

    encoder: nn.ContextEncoder
    sac: sac.Networks


class Params(eqx.Module):
    """What acting needs."""

    encoder: nn.ContextEncoder
    policy: sac.Policy
    prior: Array | None = None  # points in the latent space that uninformed episodes act on; None: N(0, I)
    scale: nn.Normaliser | None = None  # of observations


class State(eqx.Module):
    """All that training changes."""

    nets: Networks
    prior: Array | None  # points of the training tasks' posteriors, see Config.prior
    optimisers: dict[str, Any]  # Adam states of encoder, critics, value, policy, log_alpha
    replay: Replay
    scale: nn.Normaliser | None  # of observations
    env_steps: Array  # counters, int32
    collections: Array  # slices of collection done, the initial ones included
    updates: Array  # gradient steps


@dataclass(frozen=True)
class PEARL:
    """The algorithm for one family; see nacre.types.Algorithm for what each method promises."""

    config: Config
    spec: EnvSpec
    learnt = ("nets", "prior", "scale")
    observes = False  # nothing changes within an episode
    metrics_help = {  # noqa: RUF012  read only
        **sac.METRICS,
        "kl/posterior": Metric("nats", "KL(q(z|c) || r(z)), mean over tasks"),
        "posterior/mean_abs": Metric("", "mean |mu| of q(z|c)"),
        "posterior/variance": Metric("", "mean variance of q(z|c)"),
        "collect/return_prior": Metric("reward", "mean return of episodes collected with prior z"),
        "collect/return_posterior": Metric("reward", "mean return of episodes collected with posterior z"),
    }

    # -------------------------------------------------------------------------------------------------- set-up

    @property
    def belief(self) -> latent.Belief:
        c = self.config
        width = c.encoder_hidden[-1] if c.encoder == "gru" else 0
        return latent.Belief(c.latent_size, c.latent, c.factors, c.draws, width)

    def networks(self, key: Array) -> Networks:  # L1
        """Fresh networks, initialised as in the official code."""
        c, obs, act = self.config, self.spec.obs_size, self.spec.action.size
        enc_key, *keys = jax.random.split(key, 5)
        context = obs + act + 1 + (obs if c.context_next_obs else 0)
        sizes = context, c.encoder_hidden, self.belief.factor_size
        encoder = nn.ContextEncoder(*sizes, c.encoder == "gru", key=enc_key)
        actor_critic = c.latent_size, c.hidden, c.critic, c.temperature, c.critic_norm
        return Networks(encoder, sac.networks(keys, self.spec, *actor_critic))

    @property
    def learner(self) -> sac.Learner:
        c, size = self.config, self.spec.action.size
        target_entropy = c.target_entropy
        if target_entropy is None:
            target_entropy = 0.3 * math.log(size) if self.spec.discrete else -float(size)
        return sac.Learner(c.discount, c.target_rate, c.reward_scale, c.policy_mean_weight, c.policy_std_weight,
                           c.learn_temperature, target_entropy)  # fmt: skip

    @property
    def _adam(self):
        c = self.config
        if not c.decay_updates:
            return optax.adam(c.learning_rate)
        falling = c.decay_updates - c.decay_from, c.decay_from
        return optax.adam(optax.linear_schedule(c.learning_rate, c.learning_rate / 20, *falling))

    def optimisers(self, nets: Networks) -> dict[str, Any]:
        names = ("critics", "policy", "log_alpha") + (() if nets.sac.value is None else ("value",))
        return {"encoder": self._adam.init(nets.encoder), **{k: self._adam.init(getattr(nets.sac, k)) for k in names}}

    def init(self, key: Array, env: Environment, env_steps: int) -> State:
        nets = self.networks(key)
        store = replay.create(self.spec, task_count(env.train_tasks), self.room(env_steps))
        nothing = jnp.zeros((1, self.config.latent_size))
        prior = self.belief.points_of(Gaussian(nothing, nothing + 1.0)) if self.config.prior == "tasks" else None
        scale = nn.Normaliser(self.spec.obs_size) if self.config.normalise_obs else None
        return State(nets, prior, self.optimisers(nets), store, scale, *(jnp.zeros((), jnp.int32) for _ in range(3)))

    def grow(self, state: State, env: Environment, env_steps: int) -> State:
        """The same state with room for the experience of a longer run."""
        blocks = replay.blocks_for(self.spec, task_count(env.train_tasks), self.room(env_steps))
        if blocks <= state.replay.blocks:
            return state
        return dataclasses.replace(state, replay=replay.grow(state.replay, blocks))

    def room(self, env_steps: int) -> int:
        """Transitions that a run of so many env steps may keep: its last collection goes beyond them. Nothing is ever forgotten."""
        c = self.config
        episodes = sum(map(self.episodes, (c.prior_steps, c.posterior_steps, c.extra_steps)))
        return env_steps + c.tasks_per_iteration * episodes * self.spec.horizon

    @property
    def test_exploration(self) -> int:
        """Episodes of a trial that act on the prior, before what is reported as adapted."""
        return self.config.exploration_episodes

    def minimum_env_steps(self, env: Environment) -> int:
        """What the collection before the first gradient step takes."""
        return task_count(env.train_tasks) * self.episodes(self.config.initial_steps) * self.spec.horizon

    def params(self, state: State) -> Params:
        return Params(state.nets.encoder, state.nets.sac.policy, state.prior, state.scale)

    # ----------------------------------------------------------------------------------------- memory, acting

    def begin(self, params: Params, key: Array, rows: tuple[int, int]) -> Memory:  # L10
        return self.belief.begin(key, rows, params.prior)

    def act(self, params: Params, memory: Memory, obs: Array, key: Array, explore: bool):
        x = jnp.concatenate([obs if params.scale is None else params.scale(obs), memory.z], axis=-1)
        if self.spec.discrete:
            logits = params.policy(x)
            return (jax.random.categorical(key, logits) if explore else logits.argmax(axis=-1)), (), memory
        mean, log_std = params.policy(x)
        noise = jax.random.normal(key, mean.shape) if explore else 0.0
        return jnp.tanh(mean + jnp.exp(log_std) * noise), (), memory

    def observe(self, params: Params, memory: Memory, transition: Transition) -> Memory:
        return memory

    def adapt(self, params: Params, memory: Memory, episodes: Trajectory, key: Array) -> Memory:  # L10
        """Add the factors of the episodes' transitions; then z ~ q(z|c) once the exploration episodes are over."""
        context = self.context_of(nn.normalised(episodes, params.scale))
        memory = self.belief.see(params.encoder, memory, *context, self.config.trial_evidence)
        memory = dataclasses.replace(memory, episodes=memory.episodes + episodes.obs.shape[1])
        informed = memory.episodes >= self.config.exploration_episodes
        return self.belief.draw(memory, key, informed, self.belief.posterior(memory), params.prior)

    def beliefs(self, params: Params, memory: Memory) -> dict[str, Array]:
        """Named arrays for pictures: the posterior and the z acted with."""
        q = self.belief.posterior(memory)
        return {"mean": q.mean, "variance": q.variance, "z": memory.z}

    # --------------------------------------------------------------------------------------- inference of z

    def context_of(self, episodes: Trajectory) -> tuple[Array, Array]:
        """Trajectory [N, E, T] -> features [N, E * T, d] and which count [N, E * T]."""
        if self.spec.discrete:
            one_hot = jax.nn.one_hot(episodes.action, self.spec.action.size)
            episodes = episodes._replace(action=one_hot)
        x = self.features(episodes)
        return x.reshape(x.shape[0], -1, x.shape[-1]), episodes.valid.reshape(x.shape[0], -1)

    def features(self, batch: Batch | Trajectory) -> Array:
        """Transitions [N, ...] -> what the encoder sees, [N, ..., d]. The agent's own reward, not the learner's."""
        parts = [batch.obs, batch.action, batch.reward[..., None]]
        return jnp.concatenate(parts + [batch.next_obs] * self.config.context_next_obs, axis=-1)

    # ------------------------------------------------------------------------------------------------- update

    def encoder_critic_loss(self, trained, nets: Networks, batch: Batch, context, noises) -> tuple[Array, dict]:
        """L8: L_Q + beta KL as a function of (encoder, critics). The target is a constant, z inside it too."""
        encoder, critics = trained
        c = self.config
        q = self.belief.infer(encoder, *context)
        z = q.at(noises["z"])
        target = jax.lax.stop_gradient(self.learner.bellman_target(nets.sac, batch, z, noises["next_action"]))
        critic, q1 = sac.critic_loss(critics, batch, z, target, self.spec.discrete)
        gaussian = c.latent == "gaussian"
        kl = q.kl_to_standard_normal().sum() if gaussian else jnp.zeros(())
        loss = critic + (c.kl_weight * kl if c.bottleneck and gaussian else 0.0)
        aux = {"z": z, "posterior": q, "kl": kl, "critic": critic, "q": q1, "target": target}
        return loss, aux

    def update(self, nets: Networks, optimisers: dict, batch: Batch, context, noises) -> tuple[Networks, dict, dict]:
        """One gradient step (L8, L9) in the official order. batch: [N * M] rows, sorted by task; context:
        features [N, C, d], valid [N, C] and, with context_reach, a weight [N, 1]; noises: standard normals z [N, latent],
        action [N * M, A], next_action (twin)."""
        opt = dict(optimisers)

        def step(name, grads, params):
            change, opt[name] = self._adam.update(grads, opt[name], params)
            return optax.apply_updates(params, change)

        both = eqx.filter_value_and_grad(self.encoder_critic_loss, has_aux=True)
        (_, aux), (g_encoder, g_critics) = both((nets.encoder, nets.sac.critics), nets, batch, context, noises)
        encoder, critics = step("encoder", g_encoder, nets.encoder), step("critics", g_critics, nets.sac.critics)

        z = jax.lax.stop_gradient(aux["z"])  # only L_Q and the KL train the encoder
        rest, metrics = self.learner.improve(nets.sac, critics, batch, z, noises["action"], step)
        metrics |= {
            "loss/critic": aux["critic"], "q/mean": aux["q"].mean(), "q/target": aux["target"].mean(),
            "kl/posterior": aux["kl"] / z.shape[0], "posterior/mean_abs": jnp.abs(aux["posterior"].mean).mean(),
            "posterior/variance": aux["posterior"].variance.mean(),
        }  # fmt: skip
        return Networks(encoder, rest), opt, metrics

    def sample(
        self, store: Replay, key: Array, scale: nn.Normaliser | None = None
    ) -> tuple[Batch, tuple[Array, ...], dict[str, Array]]:  # L7
        """A meta-batch: RL batch (flat rows), context with its mask, and the noise of one gradient step."""
        c, spec = self.config, self.spec
        task_key, rl_key, ctx_key, z_key, a_key, next_key = jax.random.split(key, 6)
        tasks = jax.random.randint(task_key, (c.meta_batch,), 0, store.total.shape[0])
        batch = nn.normalised(replay.sample(store, rl_key, tasks, c.batch_size), scale)
        if c.context_source == "rl_batch":
            context = (self.features(batch), jnp.ones(batch.reward.shape, bool))
        else:
            context = self.context(store, ctx_key, tasks, scale)
        if c.context_reach:
            key = jax.random.fold_in(ctx_key, 1)
            reach = jax.random.uniform(key, (c.meta_batch, 1), minval=1.0, maxval=c.context_reach)
            context = (*context, reach / context[1].sum(axis=1, keepdims=True))
        batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)
        noise_shape = (c.meta_batch * c.batch_size, spec.action.size)
        noises = {"z": jax.random.normal(z_key, (c.meta_batch, c.latent_size)), "action": None, "next_action": None}
        if not spec.discrete:
            noises["action"] = jax.random.normal(a_key, noise_shape)
            if c.critic == "twin":
                noises["next_action"] = jax.random.normal(next_key, noise_shape)
        return batch, context, noises

    def context(
        self, store: Replay, key: Array, tasks: Array, scale: nn.Normaliser | None = None
    ) -> tuple[Array, Array]:
        """Context for q(z|c) of tasks [N] from the replay: features [N, C, d] and which of them count [N, C]."""
        c = self.config
        recent = c.context_source == "recent"
        if c.encoder == "gru":
            seen, valid = replay.sample_sequence(store, key, tasks, c.context_batch, recent=recent)
        elif c.context_pieces:
            length = c.context_batch // c.context_pieces
            seen, valid = replay.sample_pieces(store, key, tasks, c.context_pieces, length, recent=recent)
        else:
            seen = replay.sample(store, key, tasks, c.context_batch, recent=recent)
            valid = jnp.ones((tasks.shape[0], c.context_batch), bool)
        return self.features(nn.normalised(seen, scale)), valid

    # --------------------------------------------------------------------------------------------- the schedule

    def initial_tasks(self, env: Environment) -> int:
        """Tasks per slice of the initial collection: a divisor of their number, about 256 rows at once."""
        n, episodes = task_count(env.train_tasks), self.episodes(self.config.initial_steps)
        return max(d for d in range(1, n + 1) if n % d == 0 and (d == 1 or d * episodes <= 256))

    def episodes(self, steps: int) -> int:
        """Whole episodes that make at least `steps` env steps."""
        return math.ceil(steps / self.spec.horizon)

    def phase(self, state: State, env: Environment) -> str:  # L2
        collections, updates = int(jnp.max(state.collections)), int(jnp.max(state.updates))
        initial = task_count(env.train_tasks) // self.initial_tasks(env)
        if collections < initial:
            return "initial"
        due = self.config.initial_updates + (collections - initial + 1) * self.config.updates_per_iteration
        return "train" if updates < due else "collect"

    def collects(self, phase: str) -> bool:
        """Whether a slice adds env steps: evaluations and the end of a run come before such a one."""
        return phase != "train"

    def iterate(self, state: State, env: Environment, key: Array, phase: str) -> tuple[State, dict[str, Array]]:
        if phase == "train":
            return _train(self, state, key)
        return self.initial(state, env, key) if phase == "initial" else self.collect(state, env, key)

    def initial(self, state: State, env: Environment, key: Array):
        n = self.initial_tasks(env)
        tasks = (state.collections * n + jnp.arange(n)) % task_count(env.train_tasks)
        held = self.config.initial_exploration == "held"
        episodes = self.episodes(self.config.initial_steps)
        state, data = self.gather(state, env, key, tasks, episodes, recent=True, scripted=held)
        state = dataclasses.replace(state, collections=state.collections + 1)
        return state, {"collect/return_prior": rollout.mean_return(data)}

    def collect(self, state: State, env: Environment, key: Array):  # L3
        c = self.config
        task_key, prior_key, posterior_key, extra_key = jax.random.split(key, 4)
        tasks = jax.random.randint(task_key, (c.tasks_per_iteration,), 0, task_count(env.train_tasks))
        state = dataclasses.replace(state, replay=_clear(state.replay, tasks))
        state, data = self.gather(state, env, prior_key, tasks, self.episodes(c.prior_steps), recent=True)  # L4
        metrics = {"collect/return_prior": rollout.mean_return(data)}

        def one_posterior(state, k):  # L5
            use = jnp.full((c.tasks_per_iteration, 1), True) & ((k > 0) | (not c.lead_prior))
            state, data = self.gather(state, env, jax.random.fold_in(posterior_key, k), tasks, 1, recent=True, use=use)
            return state, rollout.mean_return(data)

        if c.posterior_steps:
            state, returns = rollout.repeat(env, one_posterior, state, self.episodes(c.posterior_steps))
            metrics["collect/return_posterior"] = returns[-1]
        if c.extra_steps:
            episodes = self.episodes(c.extra_steps)
            use = jnp.ones((c.tasks_per_iteration, episodes), bool).at[:, 0].set(not c.lead_prior)
            state, data = self.gather(state, env, extra_key, tasks, episodes, recent=False, use=use)
            led = jax.tree.map(lambda x: x[:, int(c.lead_prior and episodes > 1) :], data)
            metrics["collect/return_posterior"] = rollout.mean_return(led)
        return dataclasses.replace(state, collections=state.collections + 1), metrics

    def gather(self, state: State, env: Environment, key: Array, tasks, episodes: int, *, recent: bool, use=None,
               scripted: bool = False):  # fmt: skip
        """E episodes on each of `tasks`, into the replay. use [N, E]: act with z ~ q(z|recent context); else z ~ r(z). Where an
        episode ends early, those that begin in its row all use it. scripted: hold one random action per episode instead."""
        params, rows = self.params(state), (tasks.shape[0], episodes)

        def begin(start_key, z_key, use):
            if scripted:
                return rollout.held(self.spec, z_key, rows)
            memory = self.begin(params, start_key, rows)
            return self, memory if use is None else _informed(self, params, memory, state.replay, tasks, z_key, use)

        start_key, z_key, run_key = jax.random.split(key, 3)
        actor, memory = begin(start_key, z_key, use)
        family = take_tasks(jax.tree.map(jnp.asarray, env.train_tasks), tasks)
        again = None if use is None else jnp.ones_like(use)
        refill = lambda key, memory, over: renew(memory, begin(*jax.random.split(key), again)[1], over)  # noqa: E731
        data, _ = rollout.episode(env, actor, params, memory, family, run_key, episodes=episodes, refill=refill)
        store = replay.append(state.replay, self.spec, tasks, data, recent=recent)
        scale = None if state.scale is None else state.scale.include(data.obs, data.valid)
        env_steps = state.env_steps + data.valid.sum().astype(jnp.int32)
        state = dataclasses.replace(state, replay=store, scale=scale, env_steps=env_steps)
        return state, data


_clear = jax.jit(replay.clear_window, donate_argnums=0)


@partial(jax.jit, static_argnums=0)
def _informed(algorithm: PEARL, params: Params, memory: Memory, store: Replay, tasks, key, use) -> Memory:
    """z of the episodes marked in `use` [N, E] from the posterior, each given its own draw of recent context."""
    n, e = use.shape
    ctx_key, z_key = jax.random.split(key)
    x, valid = algorithm.context(store, ctx_key, jnp.repeat(tasks, e), params.scale)
    q = algorithm.belief.infer(params.encoder, x, valid)
    z = algorithm.belief.place(q, jax.random.uniform(z_key, (n * e, 1, q.mean.shape[-1])), params.prior)
    return dataclasses.replace(memory, z=jnp.where(use[..., None], z.reshape(n, e, -1), memory.z))


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _train(algorithm: PEARL, state: State, key: Array) -> tuple[State, dict[str, Array]]:  # L6
    """updates_per_slice gradient steps in one dispatch; the replay is read, not carried."""

    def one(carry, k):
        batch, context, noises = algorithm.sample(state.replay, jax.random.fold_in(key, k), state.scale)
        nets, optimisers, metrics = algorithm.update(*carry, batch, context, noises)
        return (nets, optimisers), metrics

    steps = algorithm.config.updates_per_slice
    (nets, optimisers), metrics = jax.lax.scan(one, (state.nets, state.optimisers), jnp.arange(steps))
    prior = state.prior
    if prior is not None:
        every = jnp.arange(state.replay.total.shape[0])
        context = algorithm.context(state.replay, jax.random.fold_in(key, steps), every, state.scale)
        prior = algorithm.belief.points_of(algorithm.belief.infer(nets.encoder, *context))
    state = dataclasses.replace(state, nets=nets, prior=prior, optimisers=optimisers, updates=state.updates + steps)
    return state, jax.tree.map(lambda x: x.mean(axis=0), metrics)
