"""The report: one page, whole in itself, from whatever a run directory holds."""

import html.parser
import json
import re
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import synthetic
from nacre import plotting, report, report_compare, results
from nacre import report_figures as figures
from nacre._errors import UserError
from nacre.algorithms.registry import algorithm_class, shown
from nacre.envs.point_robot import SparsePointRobot
from nacre.report_data import metric_series, read_run
from nacre.report_summary import Curve, group_runs, learning_curve
from nacre.report_text import difference_table, overview

FAMILIES = ("sparse-point-robot", "point-robot", "cheetah-vel", "cheetah-dir")
SECTIONS = ("learning", "shots", "tasks", "behaviour", "latent", "metrics", "configuration", "repeat")


class Reader(html.parser.HTMLParser):
    """What a test asks of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.ids, self.links, self.words = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "srcset", "action", "data"):
                self.links.append(value)

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words)).replace("\u00a0", " ")


def page(path) -> Reader:
    return Reader(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """runs(family): a finished run with its page; each is made once."""
    made = {}

    def get(family="sparse-point-robot"):
        if family not in made:
            made[family] = synthetic.write_run(tmp_path_factory.mktemp("runs") / family, family)
            report.write([made[family]])
        return made[family]

    return get


@pytest.fixture
def own(runs, tmp_path):
    """A copy of a run, to be damaged."""
    return shutil.copytree(runs(), tmp_path / "run", ignore=shutil.ignore_patterns("report.html"))


@pytest.fixture
def sketched(monkeypatch):
    """Figures are made but not turned into SVG, which is most of the time."""
    monkeypatch.setattr(report, "element", lambda *args: "<svg></svg>")


# ------------------------------------------------------------------------------------------------------ whole pages


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_fills_every_section(runs, family):
    found = page(runs(family) / "report.html")
    assert set(SECTIONS) <= set(found.ids)
    assert found.tags.count("svg") >= 7 and found.tags.count("svg") == found.tags.count("figure")
    assert family in found.text and f"nacre train pearl {family}" in found.text and "could not be" not in found.text
    assert not list(runs(family).glob("*.part"))


def test_page_is_whole_in_itself(runs):
    text = (runs() / "report.html").read_text(encoding="utf-8")
    found = Reader(text)
    assert "script" not in found.tags and "iframe" not in found.tags and "@import" not in text
    assert all(link.startswith(("#", "data:")) for link in found.links), found.links
    assert all(target.startswith(("#", "data:")) for target in re.findall(r"url\(['\"]?([^)]*)", text))
    assert not re.search(r"https?://", text)
    assert len(found.ids) == len(set(found.ids))  # figures do not share ids
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.ids)


def test_page_says_the_numbers_in_words(runs):
    text = page(runs() / "report.html").text
    assert "150,000 env steps and 30,000 gradient steps (4.7 minutes of training)" in text
    assert "On 20 test tasks, which it has never seen" in text and "95 % interval" in text
    assert re.search(r"the agent goes \d+ % of the way from doing nothing to the oracle", text)
    assert "KL(q(z|c) || r(z)), mean over tasks" in text  # the algorithm's own words
    assert "not ended" not in text


def test_direction_family_does_not_claim_unseen_tasks(runs):
    text = page(runs("cheetah-dir") / "report.html").text
    assert "which are also its training tasks" in text and "never seen" not in text


def test_several_seeds_are_pooled(tmp_path, sketched):
    run = synthetic.write_run(tmp_path / "run", seeds=(0, 1, 2))
    text = page(report.write([run])).text
    assert "seeds 0, 1, 2" in text and "intervals over seeds and test tasks" in text and "single seeds" in text
    one = page(report.write([run / "seed-1"], tmp_path / "one.html")).text
    assert "seed 1" in one and "intervals over test tasks" in one


def test_comparison(tmp_path):
    members = [
        synthetic.write_run(tmp_path / name, seeds=seeds, latent=latent)
        for name, seeds, latent in (("a", (0,), "gaussian"), ("b", (1,), "gaussian"), ("c", (2,), "deterministic"))
    ]
    path = report.write(members)
    assert path == tmp_path / "a" / "comparison.html"
    found = page(path)
    assert "3 runs compared" in found.text and "latent deterministic" in found.text and "overview" in found.ids
    assert found.text.count("nacre train pearl") == 3 and "comparison" in found.ids
    assert len(found.ids) == len(set(found.ids))


def test_differences_are_taken_task_by_task(tmp_path, sketched):
    """Two agents, of which one is better by about 10 on tasks that differ by far more."""
    rng, members, returns = np.random.default_rng(0), [], np.arange(20.0) * 30
    for name, seeds, latent, more in (("a", (0, 1), "gaussian", 0.0), ("b", (2, 3), "deterministic", 10.0)):
        run = synthetic.write_run(tmp_path / name, "point-robot", seeds=seeds, latent=latent)
        result = json.loads((run / "result.json").read_text())
        shots = len(result["shots"])
        values = returns[:, None] + 5.0 * np.arange(shots) + more + rng.uniform(-4, 4, (2, 20, shots))
        result |= {
            "per_seed": values.tolist(),
            "per_task": values.mean(axis=0).tolist(),
            "shots": values.mean(axis=(0, 1)).tolist(),
        }
        (run / "result.json").write_text(json.dumps(result))
        members.append(run)
    groups = group_runs(read_run(path) for path in members)
    (row,) = difference_table(groups)[1:]
    mean, low, high = map(float, re.findall(r"[\d.]+", row[1]))
    assert 7 < low < mean < high < 13 and row[0] == groups[1].label
    assert row[2] == "100 % (100 % to 100 %)"
    assert float(overview(groups)[1][7].split()[0]) == pytest.approx(5 * (shots - 1), abs=3)
    found = page(report.write(members))
    assert "differences" in found.ids and "One seed says nothing" not in found.text
    alone = page(report.write(members[:1])).text
    assert f"Task by task, shot {shots - 1} earns" in alone and "more than shot 0 (95 % interval" in alone
    result["task_params"][0][0] += 1  # another test
    (run / "result.json").write_text(json.dumps(result))
    assert "differences" not in page(report.write(members)).ids


def test_comparison_keeps_families_apart(tmp_path, runs, sketched):
    found = page(report.write([runs("point-robot"), runs("cheetah-vel")], tmp_path / "both.html"))
    assert "Learning curves on point-robot" in found.text and "Learning curves on cheetah-vel" in found.text
    assert len(found.ids) == len(set(found.ids))


# ------------------------------------------------------------------------------------------------- missing, damaged


def test_a_run_that_has_just_begun(own, sketched):
    shutil.rmtree(own / "evaluations")
    (own / "result.json").unlink()
    lines = (own / "metrics.jsonl").read_text().splitlines()
    (own / "metrics.jsonl").write_text("\n".join(lines[:3]) + '\n{"kind": "tra')
    text = page(report.write([own])).text
    assert "it stands at 7,500 of 150,000 env steps" in text and "there is no evaluation yet" in text
    assert "1 damaged line, left out" in text and "loss/critic" in text


def test_a_run_that_failed(own, sketched):
    (own / "result.json").unlink()
    shutil.rmtree(own / "evaluations")
    (own / "metrics.jsonl").unlink()
    (own / "error.txt").write_text("Traceback ...\nFloatingPointError: loss is nan\n\n")
    text = page(report.write([own])).text
    assert "this run failed" in text and "loss is nan" in text and "Nothing was logged yet" in text


@pytest.mark.parametrize("name", ["config.json", "versions.json", "command.txt", "result.json", "metrics.jsonl"])
@pytest.mark.parametrize("damage", [None, b"{", b"[]", b"\xff\x00"])
def test_missing_and_damaged_files_cost_only_themselves(own, sketched, name, damage):
    for file in (own / "evaluations").glob("*.npz"):
        if file.stem != "150000":
            file.unlink()
    (own / name).unlink() if damage is None else (own / name).write_bytes(damage)
    found = page(report.write([own]))
    assert "svg" in found.tags and {"shots", "metrics", "configuration", "repeat"} <= set(found.ids)


def test_damaged_and_foreign_evaluations(own, sketched):
    (own / "result.json").unlink()
    (own / "evaluations" / "150000.npz").write_bytes(b"PK not really")
    (own / "evaluations" / "notes.npz").write_bytes(b"")
    np.savez(own / "evaluations" / "160000.npz", other=np.zeros(3))
    found = page(report.write([own]))
    assert "150000.npz of seed 0 is damaged, left out" in found.text and "shots" in found.ids


def test_nan(own):
    (own / "result.json").unlink()
    file = own / "evaluations" / "150000.npz"
    with np.load(file) as old:
        arrays = {name: old[name].copy() for name in old.files}
    for name in ("returns", "info/x", "beliefs/mean"):
        arrays[name].flat[0] = np.nan
    np.savez(file, **arrays)
    lines = (own / "metrics.jsonl").read_text().splitlines()
    lines[5] = re.sub(r'"loss/critic": [\d.]+', '"loss/critic": NaN', lines[5])
    (own / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    found = page(report.write([own]))
    assert "not finite" in found.text and found.tags.count("svg") >= 5


def test_one_shot_one_task_no_beliefs(own, sketched):
    (own / "result.json").unlink()
    shutil.rmtree(own / "evaluations")
    (own / "evaluations").mkdir()
    np.savez(own / "evaluations" / "150000.npz", **{"returns": np.ones((1, 1, 1)), "tasks/0": np.ones((1, 2))})
    found = page(report.write([own]))
    assert {"shots", "tasks"} <= set(found.ids) and "latent" not in found.ids


def test_a_family_that_is_gone_and_one_that_cannot_draw(own, monkeypatch, sketched):
    monkeypatch.setattr(SparsePointRobot, "pictures", lambda self, evaluation: 1 / 0)
    text = page(report.write([own])).text
    assert "the family's pictures could not be made: ZeroDivisionError" in text
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps({**config, "env": "/nowhere/family.py:robots", "algorithm": "mine"}))
    found = page(report.write([own]))
    assert {"learning", "shots", "latent"} <= set(found.ids) and "behaviour" not in found.ids


def test_text_of_the_run_is_escaped(own, sketched):
    (own / "command.txt").write_text("nacre train <script>alert(1)</script>")
    found = page(report.write([own]))
    assert "script" not in found.tags and "<script>" in found.text


def test_mistakes_are_named(tmp_path, runs, sketched):
    with pytest.raises(UserError, match="at least one"):
        report.write([])
    with pytest.raises(UserError, match="no run directory"):
        report.write([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="is not a run"):
        report.write([tmp_path])
    with pytest.raises(UserError, match="cannot write the report"):
        report.write([runs()], tmp_path / "no" / "where.html")


# ----------------------------------------------------------------------------------------------------- the numbers


def test_curve_of_seeds_evaluated_at_different_steps(tmp_path):
    for name, points in (("a", {0: 0.0, 10: 10.0}), ("b", {5: 1.0})):
        (tmp_path / name / "evaluations").mkdir(parents=True)
        rows = [{"env_steps": s, "updates": 0, "seconds": 60.0 * s} for s in points]
        lines = [{"kind": "evaluation", "metrics": {}, **row} for row in rows]
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        for steps, value in points.items():
            np.savez(tmp_path / name / "evaluations" / f"{steps}.npz", returns=np.full((2, 3, 2), value))
    curve: Curve = learning_curve([seed for name in "ab" for seed in read_run(tmp_path / name).seeds])
    np.testing.assert_allclose(curve.env_steps, [0, 5])  # as far as both have come
    np.testing.assert_allclose(curve.mean[:, 1], [0, 3])  # at 5: the mean of 5, between 0 and 10, and 1
    np.testing.assert_allclose(curve.minutes, [0, 5])
    assert curve.interval.shape == (2, 2, 2) and len(curve.per_seed) == 2


def test_the_newer_of_result_and_evaluation_counts(own):
    result = json.loads((own / "result.json").read_text())
    result["shots"][0] = 123.0
    (own / "result.json").write_text(json.dumps(result))
    assert group_runs([read_run(own)])[0].final.shots[0] == 123.0
    shutil.copy(own / "evaluations" / "150000.npz", own / "evaluations" / "160000.npz")
    final = group_runs([read_run(own)])[0].final
    assert final.shots[0] < 15 and final.env_steps == 160_000 and final.references["oracle"][0] == 13.4


def changed(run, **top):
    """The run with other values in its config.json."""
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | top))
    return run


def test_trials_of_different_length_are_compared_by_what_a_shot_is_for(runs, tmp_path, sketched):
    short = synthetic.write_run(tmp_path / "short", "point-robot")
    long = shutil.copytree(runs("sparse-point-robot"), tmp_path / "long")
    changed(long, algorithm="maml", env="point-robot", exploration_episodes=10)  # 20 shots
    shares = []
    for order in ([short, long], [long, short]):
        groups = group_runs(read_run(path) for path in order)
        table = overview(groups)
        shares.append(sorted((row[0], row[-1]) for row in table[1:]))
        ends = {group.first.algorithm: group.curve.shots - 1 for group in groups}
        named = dict(figures.panels(groups))
        assert named["last episode"] == [ends[group.first.algorithm] for group in groups] and max(ends.values()) == 19
        after = named["first episode after exploration"]
        assert dict(zip([group.first.algorithm for group in groups], after, strict=True))["maml"] == 10
    assert shares[0] == shares[1]  # whichever is named first


def test_budgets_are_told_apart_and_a_seed_counts_once(own, tmp_path, sketched):
    other = shutil.copytree(own, tmp_path / "other")
    changed(other, loop={"env_steps": 50_000, "evaluate_every": 25_000}, seeds=[1])
    groups = group_runs(read_run(path) for path in (own, other))
    assert [group.label for group in groups] == ["env steps 150000", "env steps 50000"]
    several = synthetic.write_run(tmp_path / "several", seeds=(0, 1))
    named = page(report.write([several, several / "seed-1", several], tmp_path / "page.html")).text
    assert "seeds 0, 1" in named and "seeds 0, 1, 1" not in named and "runs compared" not in named
    copy = shutil.copytree(own, tmp_path / "copy")
    assert "seed 0 is there more than once" in page(report.write([own, copy], tmp_path / "twice.html")).text


def test_labels_differ_and_so_do_lines(tmp_path):
    settings = [
        dict(discount=0.9, kl_weight=1.0, reward_scale=1.0),
        dict(discount=0.9, kl_weight=1.0, reward_scale=2.0),
    ]
    settings.append(dict(discount=0.99, kl_weight=2.0, reward_scale=2.0))
    paths = [synthetic.write_run(tmp_path / str(k), **values) for k, values in enumerate(settings)]
    names = [group.label for group in group_runs(read_run(path) for path in paths)]
    assert len(set(names)) == 3 and "reward scale 2" in names[1]
    looks = [tuple(map(str, figures.look_of(n).values())) for n in range(24)]
    assert len(set(looks)) == 24


def test_other_parameters_of_a_family_stand_apart(own, tmp_path, sketched):
    short = changed(shutil.copytree(own, tmp_path / "short"), env_params={"horizon": 10})
    text = page(report.write([own, short], tmp_path / "page.html")).text
    assert "On sparse-point-robot (horizon 10)" in text or "sparse-point-robot (horizon 10)" in text
    assert text.count("of the way from doing nothing") == 2  # each with its own references
    quick = changed(shutil.copytree(own, tmp_path / "quick"), env_params={"threads": 2})
    assert "the highest return at the last shot" in page(report.write([own, quick], tmp_path / "same.html")).text


def test_a_result_from_before_a_run_went_on(own):
    changed(own, loop={"env_steps": 400_000})
    text = page(report.write([own])).text
    assert "not ended" not in text  # it ended at its first budget
    with (own / "metrics.jsonl").open("a") as file:
        file.write(
            json.dumps({"kind": "train", "env_steps": 200_000, "updates": 1, "seconds": 999.0, "metrics": {}}) + "\n"
        )
    text = page(report.write([own])).text
    assert "it stands at 200,000 of 400,000 env steps" in text and "the same agent without adaptation" not in text
    assert "a policy that knows the task 13.4" in text


def test_runs_of_one_seed_each_are_pooled_with_their_references(tmp_path):
    paths = [synthetic.write_run(tmp_path / str(seed), "point-robot", (seed,)) for seed in (0, 1)]
    result = json.loads((paths[1] / "result.json").read_text())
    result["references"]["no_adaptation"] = [-5.0] * len(result["shots"])
    (paths[1] / "result.json").write_text(json.dumps(result))
    final = group_runs(read_run(path) for path in paths)[0].final
    np.testing.assert_allclose(final.references["no_adaptation"], (-16 - 5) / 2)
    both = [json.loads((path / "result.json").read_text())["shots"] for path in paths]
    np.testing.assert_allclose(final.shots, np.mean(both, axis=0))
    assert final.seeds == 2
    (paths[1] / "result.json").unlink()
    assert "no_adaptation" not in group_runs(read_run(path) for path in paths)[0].final.references


def test_an_agent_that_learns_within_the_episode_is_spoken_of_so(own, sketched):
    text = page(report.write([changed(own, algorithm="varibad")])).text
    assert "in the first episode" in text and "without memory of earlier episodes" in text
    assert "before any adaptation" not in text


def test_minutes_are_counted_as_the_loop_counts_them(own):
    (own / "result.json").unlink()
    changed(own, loop={"env_steps": 400_000, "minutes": 4.7})  # 280 s of training and 5.9 s of evaluation: 4.76 minutes
    assert "not ended" not in page(report.write([own])).text
    changed(own, loop={"env_steps": 400_000, "minutes": 4.8})
    assert "not ended" in page(report.write([own])).text


def test_metrics_are_over_gradient_steps(runs):
    axis, series = metric_series(read_run(runs()).seeds[0])
    assert axis == "gradient steps" and series["loss/critic"][0][-1] == 30_000 and "seconds" not in series


def test_svg_follows_the_page():
    @plotting.styled
    def draw():
        figure, axes = plotting.new_figure(height=2)
        axes[0, 0].plot([0, 1], [0, 1], color=plotting.SERIES[0])
        return figure

    svg = plotting.to_svg(draw(), "f1")
    assert (
        svg.startswith('<svg viewBox="0 0 ') and "var(--series-0, #0072b2)" in svg and "currentColor" not in svg[:200]
    )
    assert 'id="f1-' in svg and 'id="figure' not in svg and "<?xml" not in svg and "metadata" not in svg
    assert svg == plotting.to_svg(draw(), "f1")  # the same figure gives the same text


# --------------------------------------------------------------------------------------------------- a real browser

MEASURE = """<script>
const said = [...document.querySelectorAll('figure svg')].map(svg => {
  const box = svg.getBoundingClientRect(), room = 1;
  const groups = [...svg.querySelectorAll('g[id*="-text_"]')];
  const texts = groups.map(g => g.getBoundingClientRect()).filter(r => r.width > 0);
  const out = texts.filter(r => r.left < box.left - room || r.right > box.right + room
                             || r.top < box.top - room || r.bottom > box.bottom + room).length;
  const paths = svg.querySelectorAll('path').length;
  return {width: box.width, height: box.height, texts: texts.length, out: out, paths: paths};
});
const wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
document.body.innerHTML = '<pre id="measured">' + JSON.stringify({figures: said, wide: wide}) + '</pre>';
</script>"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """browse(page, *options) -> (standard output, standard error) of a headless Chromium."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    profile = tmp_path_factory.mktemp("profile")

    def browse(path, *options):
        command = [
            program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr",
            f"--user-data-dir={profile}", "--virtual-time-budget=5000", *options, path.as_uri(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    return browse


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("width", [1100, 420])
def test_browser_shows_every_figure_unclipped(tmp_path, runs, browser, family, width):
    text = (runs(family) / "report.html").read_text(encoding="utf-8")
    measured = tmp_path / "measured.html"
    measured.write_text(text.replace("</body>", MEASURE + "</body>"), encoding="utf-8")
    dom, errors = browser(measured, "--dump-dom", f"--window-size={width},900")
    found = json.loads(re.search(r'<pre id="measured">(.*?)</pre>', dom, re.DOTALL).group(1))
    assert "CONSOLE" not in errors, errors
    assert len(found["figures"]) >= 7 and not found["wide"]
    for figure in found["figures"]:
        assert figure["width"] > 0.7 * min(width, 900) and figure["height"] > 60
        assert figure["paths"] > 20 and figure["texts"] > 5 and figure["out"] == 0, figure


def test_browser_paints_light_and_dark(tmp_path, browser, runs):
    pictures = {}
    for name, option in (("light", ()), ("dark", ("--blink-settings=preferredColorScheme=0",))):
        shot = tmp_path / f"{name}.png"
        _, errors = browser(runs() / "report.html", f"--screenshot={shot}", "--window-size=1100,5000", *option)
        assert "CONSOLE" not in errors, errors
        pictures[name] = np.asarray(Image.open(shot).convert("RGB"), float)
    for pixels in pictures.values():
        strips = pixels.reshape(10, 500, 1100, 3)
        assert (strips.std(axis=(1, 2, 3)) > 5).sum() >= 8  # something is drawn nearly everywhere
    assert pictures["light"].mean() > 200 and pictures["dark"].mean() < 80


def test_metrics_of_one_name_and_two_meanings_are_told_apart():
    """In the order of the runs, not of a set; the unit is left out where units differ."""
    groups = [SimpleNamespace(first=SimpleNamespace(algorithm=name)) for name in ("varibad", "pearl", "varibad")]
    unit, meaning = report.metric_help(groups)["loss/policy"]
    first, second = (algorithm_class(name).metrics_help["loss/policy"] for name in ("varibad", "pearl"))
    assert meaning == f"{first.meaning}; of {shown('pearl')}: {second.meaning}"
    assert unit == (first.unit if first.unit == second.unit else "")


def test_a_page_tells_the_same_gain_as_the_table():
    by_task = np.random.default_rng(0).normal(size=(1, 20, 3))
    group = SimpleNamespace(final=SimpleNamespace(by_seed=by_task, shots=by_task.mean((0, 1))), all_tasks=False)
    found = results.summary(by_task[:, None])
    assert report_compare.gain(group) == pytest.approx((found["gain"], *found["gain_interval"]))
