"""What families draw of their agents."""

import subprocess
import sys

import numpy as np
import pytest

from nacre.envs import cheetah_pictures, locomotion_pictures, pictures
from nacre.envs.registry import make_family


def evaluation(family, shots=4, tasks=None, repetitions=2, steps=12):
    random = np.random.default_rng(0)
    tasks = np.asarray(make_family(family).test_tasks)[:tasks]
    n = len(tasks)
    names = ("velocity",) if "cheetah" in family else ("x", "y", "velocity")
    return {
        "returns": random.uniform(-1, 5, (repetitions, n, shots)),
        "lengths": random.integers(1, steps + 1, (repetitions, n, shots)),
        "tasks": tasks,
        "info": {name: random.uniform(-1, 1, (shots, n, steps)) for name in names},
        "beliefs": {},
        "exploration_episodes": 2,
    }


@pytest.mark.parametrize(
    ("family", "titles"),
    [
        ("sparse-point-robot", ["shot by shot", "single goals", "Goals found"]),
        ("point-robot", ["shot by shot", "single goals", "Where episodes end"]),
        ("wind", ["shot by shot", "Single winds", "In the goal"]),
        ("cheetah-vel", ["Commanded and reached speed", "within an episode"]),
        ("cheetah-dir", ["Velocity per direction", "within an episode"]),
        ("ant-dir", ["shot by shot", "Distance in the direction asked for"]),
        ("ant-goal", ["shot by shot", "Where episodes end"]),
        ("humanoid-dir", ["shot by shot", "Distance in the direction asked for"]),
        ("walker-params", ["How far the body comes", "Distance per episode", "Time upright"]),
        ("wheeled-robot", ["Where it goes, shot by shot", "Goals found"]),
        ("block-push", ["Where it goes, shot by shot", "Goals found"]),
        ("maml/ant-vel", ["Velocity against the task"]),
        ("varibad/hopper-params", ["How far the body comes", "Distance per episode", "Time upright"]),
    ],
)
@pytest.mark.parametrize(("shots", "tasks"), [(1, 1), (3, 2), (20, None)])
def test_each_family_draws(family, titles, shots, tasks):
    drawn = make_family(family).pictures(evaluation(family, shots, tasks))
    assert len(drawn) == len(titles)
    for (title, caption, figure), expected in zip(drawn, titles, strict=True):
        assert expected in title and caption.endswith(".")
        labels = {text for axis in figure.axes for text in (axis.get_xlabel(), axis.get_ylabel()) if text}
        assert len(labels) >= 2


def test_grid_draws_paths_and_where_the_goal_is_believed():
    for shots, tasks in ((1, 1), (4, None)):
        found = evaluation("grid-navi", shots, tasks, steps=15)
        n, random = len(found["tasks"]), np.random.default_rng(1)
        found["info"] = {name: random.integers(0, 5, (shots, n, 15)).astype(float) for name in "xy"}
        titles = ["Where the agent goes, shot by shot", "How soon goals are found"]
        assert [title for title, _, _ in make_family("grid-navi").pictures(found)] == titles
        found["info"]["belief/pays"] = random.random((shots, n, 15, 25))
        first, *others = make_family("grid-navi").pictures(found)
        assert "believes the goal is" in first[0] and [title for title, _, _ in others] == titles
        shown = [axis for axis in first[2].axes if axis.images]
        assert len(shown) == min(shots, 4) * 8
    # column by column: cell 5 x + y of the belief is drawn at (x, y)
    task = int(pictures.spread(found["tasks"].sum(axis=-1), 5)[-2])
    image = shown[0].images[0].get_array()
    np.testing.assert_allclose(image[3, 1], found["info"]["belief/pays"][0, task, 0, 5 * 1 + 3])
    assert shown[0].lines[-1].get_xydata()[0].tolist() == found["tasks"][task].tolist()


def test_shots_chosen():
    assert pictures.chosen_shots(20, 5, 8) == [0, 1, 2, 3, 4, 5, 10, 19]
    assert pictures.chosen_shots(3, 2, 4) == [0, 1, 2]
    assert pictures.chosen_shots(10, 2, 4) == [0, 1, 5, 9]
    for shots in range(1, 30):
        for exploration in range(8):
            chosen = pictures.chosen_shots(shots, exploration, 8)
            assert chosen[0] == 0 and chosen[-1] == shots - 1 and len(chosen) == min(8, shots) == len(set(chosen))


def test_share_of_goals_found_by_hand():
    returns = np.array([[[0.0, 2.0, 0.0], [0.0, 0.0, 0.0]]])  # one repetition, two goals, three shots
    _, _, figure = pictures.found_picture({"returns": returns}, 1)
    lines = {line.get_label(): line.get_ydata().tolist() for line in figure.axes[0].lines}
    assert lines["found in this episode"] == [0.0, 0.5, 0.0]
    assert lines["found in this or an earlier episode"] == [0.0, 0.5, 0.5]


def test_agents_beside_each_other():
    ours = {name: evaluation("sparse-point-robot", 5) for name in ("one", "two")}
    ((_, _, figure),) = make_family("sparse-point-robot").comparisons(ours)
    assert [line.get_label() for line in figure.axes[0].lines] == ["one", "two"]


def test_reached_speed_is_that_of_the_second_half():
    velocity = np.zeros((1, 2, 10))
    velocity[0, 1, 5:] = 2.0
    _, _, figure = cheetah_pictures.speed_picture(velocity, np.array([0.0, 2.0]), 0)
    points = figure.axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(points, [[0, 0], [2, 2]])
    assert "0.00 m/s" in figure.axes[0].texts[0].get_text()


def test_directions():
    name, values = pictures.angles(np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    np.testing.assert_allclose(values, [0, 90, 180])
    assert "degrees" in name


def test_matplotlib_is_imported_only_when_something_is_drawn():
    modules = "nacre.envs.pictures, nacre.envs.animations, nacre.plotting, nacre.report, nacre.watch"
    program = f"import sys, {modules}; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_paths_end_where_episodes_end():
    """What is recorded after the end of an episode is zero, and must not be drawn."""
    info = {"x": np.array([[[1.0, 2.0, 0.0]], [[1.0, 2.0, 3.0]]]), "y": np.zeros((2, 1, 3))}  # two shots of one task
    made = {"info": info, "lengths": np.array([[[2, 3]]]), "tasks": np.zeros(1), "returns": np.zeros((1, 1, 2))}
    assert [[path.tolist() for path in shot] for shot in locomotion_pictures.tracks(made, "x")] == [
        [[[1.0], [2.0]]], [[[1.0], [2.0], [3.0]]],
    ]  # fmt: skip
    _, (_, _, figure) = locomotion_pictures.heading_pictures(made)
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    np.testing.assert_allclose(lines["median"], [2.0, 3.0])  # along the x axis
