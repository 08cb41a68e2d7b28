"""The page of an evaluation: success, where failures stopped, the comparison with another policy, videos."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from robo_policies.evaluation.comparison import Comparison
from robo_policies.evaluation.plots import stopped_figure, strip_figure, success_bars, time_figure
from robo_policies.evaluation.results import Evaluation
from robo_rm.report import Page, save_image, success_figure


def write_report(
    folder: Path,
    env: str,
    evaluations: Mapping[str, Evaluation],
    comparison: Comparison | None,
    following: str = "",
) -> None:
    """Write ``report.html`` and its images into ``folder``.

    Args:
        folder: of the evaluation.
        env: the environment's name.
        evaluations: by the policy's name; the baseline first, where there is one, the evaluated one last.
        comparison: of the two.
        following: the command to type next.
    """
    evaluated = list(evaluations)[-1]
    result = evaluations[evaluated]
    low, high = result.interval
    page = Page(
        f"{evaluated} in {env}",
        f"{result.successes} of {len(result.rollouts)} episodes succeed: {result.success_rate:.0%}, between "
        f"{low:.0%} and {high:.0%} with 95 % confidence.",
        "policies.md" if comparison is None else "comparing_policies.md",
        following,
    )
    if comparison is not None:
        page.section("Against the other policy")
        page.verdicts([verdict(comparison, *evaluations)])
        page.table(["", f"{evaluated} succeeds", f"{evaluated} fails"], pair_rows(comparison, next(iter(evaluations))))
        page.prose(
            "Both policies faced the same starts, so each start is a pair. Starts on which both do the same say "
            "nothing about which is better; McNemar's exact test asks how likely so uneven a split of the others is if "
            "neither is. The interval is Newcombe's for paired rates; where few starts differ the exact test is the "
            "more careful of the two, and decides. Both speak of these two trained policies: how much a method varies "
            "from one training run to the next, only several runs show."
        )
    page.section("Success")
    figure = success_figure(success_bars(evaluations), "Success over the same random starts")
    save_image(figure, folder / "success.png")
    rates = ", ".join(f"{name} {one.successes} of {len(one.rollouts)}" for name, one in evaluations.items())
    page.image(
        figure,
        "Bars: fraction of the episodes that succeeded. Lines: 95 % Wilson intervals.",
        alt=f"Success: {rates} episodes",
    )
    page.table(["", *evaluations], metric_rows(evaluations))
    if any(one.successes for one in evaluations.values()):
        page.image(
            time_figure(evaluations),
            "Fraction of the episodes that had succeeded by each second.",
            alt=f"Successes over time, up to {rates}",
        )
    failures = sum(len(one.rollouts) - one.successes for one in evaluations.values())
    if result.stages and failures:
        page.section("Failures")
        figure = stopped_figure(evaluations)
        save_image(figure, folder / "stopped.png")
        counts = ", ".join(
            f"{name}: " + ", ".join(f"{stage} {count}" for stage, count in one.stopped_at().items() if count)
            for name, one in evaluations.items()
        )
        page.image(
            figure, "The furthest stage that each failed episode reached.", alt=f"Failed episodes by stage; {counts}"
        )
    _videos(page, folder, evaluations)
    page.write(folder / "report.html")


def verdict(comparison: Comparison, first: str, second: str) -> tuple[str, str]:
    """A mark and one sentence: whether ``second`` is better than ``first``."""
    value, low, high = (100 * end for end in comparison.difference)
    numbers = f"{value:+.1f} points ({low:+.1f} to {high:+.1f}), McNemar p = {comparison.p_value:.2g}"
    if comparison.verdict == "better":
        return "yes", f"{second} succeeds more often than {first}: {numbers}."
    if comparison.verdict == "worse":
        return "no", f"{second} succeeds less often than {first}: {numbers}."
    return "care", f"These {comparison.pairs} starts do not distinguish {second} from {first}: {numbers}."


def pair_rows(comparison: Comparison, first: str) -> list[tuple[str, int, int]]:
    """The table of pairs, rows by the first policy's outcome."""
    return [
        (f"{first} succeeds", comparison.both, comparison.only_first),
        (f"{first} fails", comparison.only_second, comparison.neither),
    ]


def metric_rows(evaluations: Mapping[str, Evaluation]) -> list[tuple[str, ...]]:
    """The rows of `Evaluation.rows`, one column per policy."""
    columns = [dict(one.rows()) for one in evaluations.values()]
    return [(name, *(column.get(name, "-") for column in columns)) for name in columns[-1]]


def _videos(page: Page, folder: Path, evaluations: Mapping[str, Evaluation]) -> None:
    if not any(one.videos for one in evaluations.values()):
        return
    page.section("Best and worst episodes")
    for name, evaluation in evaluations.items():
        for video in evaluation.videos:
            rollout = video.rollout
            reached = f", reached: {evaluation.stages[rollout.stage]}" if evaluation.stages else ""
            outcome = "success" if rollout.success else f"failure{reached}"
            title = f"{name}, {video.kind}: episode {rollout.episode}, {outcome}, {rollout.seconds:.1f} s"
            path = video.path.relative_to(folder).as_posix()
            page.image(
                strip_figure(video.strip, title), f"[{path}]({quote(path)})", alt=f"Film strip of {title}", photo=True
            )
