"""The HTML report of a run, or of several beside each other: one file with everything in it, no network.

Reads run directories only and knows no algorithm: names of metrics, units and beliefs come from the run and from the
algorithm's own table of metrics; drawings of what an agent does come from the task family (`pictures`, `task_axis`).
"""

import base64
import dataclasses
import importlib.resources
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nacre import plotting
from nacre import report_figures as figures
from nacre._errors import UserError
from nacre._files import write_text
from nacre.report_data import Run, metric_series, read_run
from nacre.report_summary import (
    Final,
    Group,
    attempt,
    differences,
    distinct,
    evaluation_for_pictures,
    family_of,
    group_runs,
    label_of,
    pooled,
    task_array,
)
from nacre.report_text import (
    configuration,
    describe,
    difference_table,
    differences_words,
    overview,
    repetition,
    shot_table,
    status,
    subtitle,
    tiles,
)

SVG_LIMIT = 1_500_000  # characters; a drawing that needs more goes in as a PNG
MOST_BARS = 200  # of a picture task by task


@dataclass
class Figure:
    """One drawing on the page."""

    drawing: str  # <svg> or <img>
    caption: str
    title: str = ""


@dataclass
class Section:
    """One part of the page."""

    id: str
    title: str
    text: str = ""
    figures: list[Figure] = field(default_factory=list)
    table: list[list[str]] = field(default_factory=list)
    fold: str = ""  # if set, the table is folded away under these words
    glossary: list[tuple[str, str, str]] = field(default_factory=list)


class Page:
    """Collects sections; keeps a remark where a drawing fails, so that one bad figure does not cost the page."""

    def __init__(self):
        self.sections: list[Section] = []
        self.remarks: list[str] = []
        self._drawn = 0

    def draw(self, what: str, caption: str, make: Any, *args: Any, title: str = "") -> list[Figure]:
        """[Figure] of make(*args), a matplotlib Figure; [] where it fails or gives None."""
        found = attempt(what, self.remarks, lambda: make(*args))
        return [] if found is None else self.embed(what, caption, found, title)

    def embed(self, what: str, caption: str, drawing: Any, title: str = "") -> list[Figure]:
        self._drawn += 1
        text = attempt(what, self.remarks, lambda: element(drawing, f"f{self._drawn}", title or what))
        return [] if text is None else [Figure(text, caption, title)]


def element(drawing: Any, prefix: str, alt: str) -> str:
    """A matplotlib Figure as inline SVG, or as PNG in a data URI where that would be too long."""
    svg = plotting.to_svg(drawing, prefix)
    if len(svg) <= SVG_LIMIT:
        return svg
    buffer = io.BytesIO()
    plotting.styled(drawing.savefig)(buffer, format="png", dpi=160)
    return f'<img alt="{alt}" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def write(run_dirs: list[Path], out: Path | None = None) -> Path:
    """Write the page of one run, or of several beside each other, and return its path.

    out: the file; None: `report.html` in the run, for several `comparison.html` in the first. Missing or damaged parts
    of a run become remarks on the page. Raises UserError where a path is no run, or the file cannot be written.
    """
    if not run_dirs:
        raise UserError("report needs at least one run directory")
    runs = distinct(read_run(Path(path)) for path in run_dirs)
    default = "report.html" if len(runs) == 1 else "comparison.html"
    out = runs[0].path / default if out is None else Path(out).expanduser()
    if out.is_dir():
        out = out / default
    text = render(runs)
    try:
        write_text(out, text)
    except OSError as error:
        raise UserError(f"cannot write the report to {out}: {error.strerror or error}") from error
    return out


def render(runs: list[Run]) -> str:
    """The page as text."""
    from jinja2 import Environment

    page = Page()
    tests: dict[str, list[Run]] = {}
    for run in runs:
        tests.setdefault(run.test, []).append(run)
    parts = [group_runs(members) for members in tests.values()]
    names = test_names(parts)
    for groups, name in zip(parts, names, strict=True):
        add_family(page, groups, name, several=len(parts) > 1)
    everything = [group for groups in parts for group in groups]
    remarks = [*status(everything), *(remark for run in runs for remark in remarks_of(run)), *page.remarks]
    source = importlib.resources.files("nacre").joinpath("report_page.jinja").read_text(encoding="utf-8")
    template = Environment(autoescape=True, finalize=tied).from_string(source)
    one = everything[0] if len(everything) == 1 else None
    return template.render(
        title=title_of(parts, names),
        subtitle=subtitle(everything),
        summary=[text for groups, name in zip(parts, names, strict=True) for text in describe(groups, name)],
        tiles=tiles(one) if one else [],
        remarks=list(dict.fromkeys(remarks)),
        sections=page.sections,
        configuration=configuration(everything),
        repeat=[repetition(run, len(runs) > 1) for run in runs],
        sources=", ".join(run.path.resolve().name for run in runs),
    )


def tied(value: Any) -> Any:
    """Text whose percent signs do not part from their number at the end of a line."""
    return value.replace(" %", "\u00a0%") if type(value) is str else value


def title_of(parts: list[list[Group]], names: list[str]) -> str:
    algorithms = [run.shown.upper() for groups in parts for group in groups for run in group.runs]
    return f"{' and '.join(dict.fromkeys(algorithms))} on {' and '.join(names)}"


def test_names(parts: list[list[Group]]) -> list[str]:
    """The family of each part, with what differs in the test where it is there more than once."""
    runs = [groups[0].first for groups in parts]
    families = [run.family for run in runs]
    names = []
    for run in runs:
        same = [other for other in runs if other.family == run.family]
        differing = [name for name in differences(same) if name.startswith("env.") or name == "eval_tasks"]
        own = label_of(run, differing, len(differing)).replace("env.", "") if families.count(run.family) > 1 else ""
        names.append(f"{run.family} ({own})" if own else run.family)
    return names


def remarks_of(run: Run) -> list[str]:
    return [*run.remarks, *(remark for seed in run.seeds for remark in dict.fromkeys(seed.remarks))]


# ------------------------------------------------------------------------------------------------------- sections


def add_family(page: Page, groups: list[Group], name: str, several: bool) -> None:
    """The sections about one task family; groups differ in algorithm or settings."""
    run = groups[0].first
    suffix = f" on {name}" if several else ""
    before = len(page.sections)
    tested = [group for group in groups if group.final is not None]
    if len(groups) > 1:
        page.sections.append(Section("overview", f"Overview{suffix}", table=overview(groups)))
    if len(tested) > 1 and (table := difference_table(tested)):
        page.sections.append(Section("differences", f"Differences{suffix}", differences_words(tested), table=table))
    add_curves(page, groups, suffix)
    if tested:
        family = family_of(run)
        add_final(page, tested, suffix, family)
        add_comparison(page, [group for group in tested if any(s.returns for s in group.seeds)], family, suffix)
        for group in tested:
            add_behaviour(page, group, family, suffix, named=len(groups) > 1)
    add_metrics(page, groups, suffix)
    for section in page.sections[before:]:
        section.id += f"-{before}" if several else ""


def add_curves(page: Page, groups: list[Group], suffix: str) -> None:
    section = Section("learning", f"Learning curves{suffix}")
    page.sections.append(section)
    evaluated = [group for group in groups if group.curve.shots]
    if not evaluated:
        section.text = "There is no evaluation yet, so there is no curve to show."
        return
    seeds = max(len(group.curve.per_seed) for group in evaluated)
    many = "seeds" if groups[0].all_tasks else "seeds and test tasks"
    band = f"bands are 95 % bootstrap intervals over {many if seeds > 1 else 'test tasks'}"
    thin = "; thin lines are the single seeds" if seeds > 1 else ""
    references = reference_lines(evaluated)
    caption = (
        f"Return of an episode on test tasks, {band}{thin}. Time is training alone, evaluation left out."
        f"{' Grey lines: references on the same tasks, mean over shots.' if references else ''}"
    )
    section.figures += page.draw("Learning curves", caption, figures.learning_curves, evaluated, references)


def reference_lines(groups: list[Group]) -> dict[str, np.ndarray]:
    """Of all groups; no_adaptation only where it is one agent's."""
    found: dict[str, np.ndarray] = {}
    for group in groups:
        found = {**(group.final.references if group.final else {}), **found}
    if len(groups) > 1:
        found.pop("no_adaptation", None)
    return found


def add_final(page: Page, groups: list[Group], suffix: str, family: Any) -> None:
    """Return per shot, and per task unless there are too many to tell apart."""
    final = groups[0].final
    many = sorted({group.final.repetitions for group in groups})
    each = " to ".join(map(str, many if len(many) < 3 else (many[0], many[-1])))
    n = len(final.per_task)
    trials = f"{n} test task{'s' * (n != 1)}, {each} trial{'s' * (many != [1])} each"
    caption = f"Mean return of each episode of a trial ({trials}) with 95 % bootstrap intervals."
    section = Section("shots", f"Return per shot{suffix}", fold="The numbers", table=shot_table(groups))
    section.figures += page.draw("Return per shot", caption, figures.return_per_shot, groups)
    page.sections.append(section)
    if len(final.per_task) > MOST_BARS:
        return
    axis = task_axis(family, groups[0].first, final)
    first = "in the first episode" if groups[0].learns_within else "before any adaptation"
    what = "at the last shot" if len(groups) > 1 else f"{first} and at the last shot"
    oracle = " Grey line: the oracle's mean over tasks and shots." if "oracle" in final.references else ""
    caption = f"Mean return on each test task {what}, sorted by the task.{oracle}"
    section = Section("tasks", f"Task by task{suffix}")
    section.figures += page.draw("Task by task", caption, figures.per_task, groups, axis)
    page.sections.append(section)


def add_comparison(page: Page, groups: list[Group], family: Any, suffix: str) -> None:
    """What the family draws of several agents at once; all seeds together."""
    if len(groups) < 2 or not hasattr(family, "comparisons"):
        return
    evaluations = {}
    for group in groups:
        _, evaluation = evaluation_for_pictures(group)
        last = [seed.returns[max(seed.returns)] for seed in group.seeds if seed.returns]
        evaluations[group.label] = {**evaluation, "returns": pooled(last)}
    drawn = attempt("the family's comparison", page.remarks, lambda: family.comparisons(evaluations)) or []
    section = Section("comparison", f"What the agents do{suffix}")
    for title, caption, drawing in drawn:
        section.figures += page.embed(title, caption, drawing, title)
    page.sections += [section] * bool(section.figures)


def task_axis(family: Any, run: Run, final: Final) -> tuple[str, np.ndarray]:
    """Name and value [N] of the number that tells tasks apart: the family's choice, else the first parameter."""
    if hasattr(family, "task_axis"):
        found = attempt("the family's task axis", run.remarks, lambda: family.task_axis(final.tasks))
        if found is not None:
            return found[0], np.asarray(found[1], float).reshape(-1)
    names = run.spec.get("task_names") or [name for name in getattr(getattr(family, "spec", None), "task_names", ())]
    return (names[0] if names else "first task parameter"), final.tasks[:, 0]


def add_behaviour(page: Page, group: Group, family: Any, suffix: str, named: bool) -> None:
    """What the family draws, and the latent space; of the first seed."""
    found = evaluation_for_pictures(group)
    if found is None:
        return
    seed, evaluation = found
    own = f": {group.label}" if named else ""
    who = f"Shown: {seed.label}, the last evaluation." if len(group.seeds) > 1 else ""
    tag = f"-{group.label.replace(' ', '-')}" if named else ""
    if hasattr(family, "pictures"):
        drawn = attempt("the family's pictures", page.remarks, lambda: family.pictures(evaluation)) or []
        section = Section(f"behaviour{tag}", f"What the agent does{own or suffix}", who)
        for title, caption, drawing in drawn:
            section.figures += page.embed(title, caption, drawing, title)
        page.sections += [section] * bool(section.figures)
    mean = figures.belief_mean(evaluation["beliefs"])
    if mean is None or mean.shape[-1] == 0:
        return
    axis = task_axis(family, group.first, dataclasses.replace(group.final, tasks=own_tasks(seed)))
    reduced = " (its two principal components, with their share of the variance)" if mean.shape[-1] > 2 else ""
    caption = (
        f"Mean of the belief about the task{reduced}, one point per test task and trial, coloured by the task. "
        "Neighbouring tasks should lie together, different ones apart."
    )
    section = Section(f"latent{tag}", f"What the agent believes{own or suffix}", who)
    section.figures += page.draw("Latent space", caption, figures.latent_space, mean, axis, group.exploration)
    page.sections += [section] * bool(section.figures)


def own_tasks(seed: Any) -> np.ndarray:
    """Tasks of the evaluation that is drawn."""
    arrays = seed.evaluation(max(seed.returns))
    tasks = task_array(arrays)
    return np.arange(arrays["returns"].shape[1], dtype=float)[:, None] if tasks is None else tasks


def add_metrics(page: Page, groups: list[Group], suffix: str) -> None:
    units = metric_help(groups)
    section = Section("metrics", f"Training metrics{suffix}")
    first = "" if all(len(group.seeds) == 1 for group in groups) else " The first seed is shown."
    caption = f"Faint: as logged; strong: moving mean.{first} Scales are logarithmic where values span two decades."
    drawing = {name: unit for name, (unit, _) in units.items()}
    section.figures += page.draw("Training metrics", caption, figures.training_metrics, groups, drawing)
    section.text = section.text if section.figures else "Nothing was logged yet."
    logged = {name for group in groups if group.seeds for name in metric_series(group.seeds[0])[1]}
    section.glossary = [(name, *units[name]) for name in sorted(logged) if name in units]
    page.sections.append(section)


LOOP_METRICS = {  # what the training loop itself logs
    "rate/env_steps": ("per second", "env steps per second of training"),
    "rate/updates": ("per second", "gradient steps per second of training"),
}


def metric_help(groups: list[Group]) -> dict[str, tuple[str, str]]:
    """Metric -> unit and meaning, as the algorithms tell them; algorithms that are not known here tell nothing."""
    from nacre.algorithms.registry import algorithm_class, shown

    found = dict(LOOP_METRICS)
    for name in dict.fromkeys(g.first.algorithm for g in groups):
        told = attempt(name, [], lambda name=name: algorithm_class(name).metrics_help) or {}
        for key, new in told.items():
            unit, meaning = found.setdefault(key, (new.unit, new.meaning))
            if (unit, meaning) != (new.unit, new.meaning):  # the same name, another meaning
                found[key] = unit if unit == new.unit else "", f"{meaning}; of {shown(name)}: {new.meaning}"
    return found
