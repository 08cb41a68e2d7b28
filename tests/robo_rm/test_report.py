"""Pictures show what they are given and stay small; pages hold everything they need and nothing unsafe."""

from __future__ import annotations

import base64
import hashlib
import re
import warnings
from dataclasses import replace
from email.message import Message
from html.parser import HTMLParser
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from robo_core.cli.typed import typed
from robo_core.errors import ModelError
from robo_rm.report import (
    EpisodeView,
    Page,
    confusion_figure,
    episode_figure,
    episode_view,
    image_bytes,
    reliability_figure,
    roc_figure,
    save_image,
    scores_figure,
    success_figure,
    weights_figure,
)
from robo_rm.reward_models.prediction import Prediction

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "robo_rm/report/templates"
STAGES = ["open the drawer", "reach for the cube", "grasp the cube", "carry it", "close the drawer"]


def _view(length: int = 240, images: int = 10) -> EpisodeView:
    rng = np.random.default_rng(0)
    stage = np.minimum(np.arange(length) * 5 // length, 4)
    return EpisodeView(
        title="wandering, episode 1",
        fps=20.0,
        progress=np.linspace(0, 1, length, dtype=np.float32),
        stage=stage,
        stages=STAGES,
        success=True,
        true_progress=np.linspace(0, 1, length, dtype=np.float32),
        true_stage=np.roll(stage, 3),
        uncertainty=np.full(length, 0.05, np.float32),
        weights=rng.random(length).astype(np.float32),
        frames=rng.integers(0, 255, (images, 6, 8, 3), dtype=np.uint8).repeat(16, 1).repeat(16, 2),
    )


def _words(figure: object) -> str:
    return " ".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))  # type: ignore[attr-defined]


class TestEpisodeFigure:
    def test_shows_frames_curves_bands_weights_and_stage_names_in_a_small_file(self) -> None:
        figure = episode_figure(_view())
        words = _words(figure)
        for expected in ("wandering, episode 1", "predicted stage", "true stage", "weight", "success", *STAGES):
            assert expected in words
        assert sum(len(axes.images) for axes in figure.axes) == 11  # ten frames and the weights
        data = image_bytes(figure, photo=True)
        assert data[:2] == b"\xff\xd8"
        assert len(data) < 150_000

    def test_leaves_out_what_is_not_known(self) -> None:
        bare = replace(
            _view(), true_progress=None, true_stage=None, weights=None, frames=None, uncertainty=None, success=None
        )
        words = _words(episode_figure(bare))
        assert "true stage" not in words
        assert "weight" not in words
        assert "outcome unknown" in words

    def test_an_unlabelled_truth_gets_no_band(self) -> None:
        assert "true stage" not in _words(episode_figure(replace(_view(), true_stage=np.full(240, -1))))

    def test_one_frame_is_enough(self) -> None:
        assert image_bytes(episode_figure(_view(1, 1)))[:4] == b"\x89PNG"

    def test_arrays_of_another_length_are_refused(self) -> None:
        with pytest.raises(ModelError, match="weights has 3 frames, the progress 240"):
            replace(_view(), weights=np.zeros(3, np.float32))

    def test_gathers_a_view_from_an_episode_with_frames_from_the_middles_of_equal_parts(self) -> None:
        asked: list[list[int]] = []

        class Camera:
            def __getitem__(self, index: list[int]) -> np.ndarray:
                asked.append(index)
                return np.zeros((len(index), 240, 320, 3), np.uint8)

        class Stored(SimpleNamespace):
            def __getitem__(self, key: str) -> Camera:
                return Camera()

        episode = Stored(
            uuid="0123456789abcdef",
            length=40,
            success=False,
            task="tidy",
            stage=np.zeros(40),
            attributes={"quality": "drop_regrasp"},
        )
        prediction = Prediction(
            np.zeros(40, np.float32), np.eye(5, dtype=np.float32)[[2] * 40], np.zeros(40, np.float32)
        )
        view = episode_view(episode, prediction, STAGES, 20, camera="observation.images.front", images=4)
        assert asked == [[5, 15, 25, 35]]
        assert view.frames is not None
        assert view.frames.shape == (4, 120, 160, 3)
        assert view.title == "drop regrasp, episode 01234567"
        assert set(view.stage) == {2}


def test_weights_of_several_episodes_share_one_axis_of_time() -> None:
    figure = weights_figure([_view(240), _view(120)])
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()
    assert len(image_bytes(figure)) < 150_000
    with pytest.raises(ModelError, match="no weights"):
        weights_figure([replace(_view(), weights=None)])


def test_success_bars_say_rate_and_counts_and_draw_the_wilson_interval() -> None:
    figure = success_figure([("BC", 8, 10), ("RA-BC", 0, 10)])
    words = _words(figure)
    assert "80%  (8/10)" in words
    assert "0%  (0/10)" in words
    ends = [line.get_xdata() for line in figure.axes[0].lines]
    np.testing.assert_allclose(ends[0], [0.4902, 0.9433], atol=2e-4)


def test_confusion_is_shown_in_percent_of_each_true_stage() -> None:
    words = _words(confusion_figure(np.array([[3, 1], [0, 0]]), ["reach", "grasp"]))
    assert "75" in words
    assert "25" in words
    assert "nan" not in words


def test_the_other_charts_draw_and_stay_small() -> None:
    rng = np.random.default_rng(0)
    success, score = rng.random(40) < 0.5, rng.random(40)
    groups = ["clean" if good else "wrong_order" for good in success]
    for figure in (
        roc_figure([("final", score), ("highest", score)], success),
        reliability_figure(rng.random(500), rng.random(500) < 0.7),
        scores_figure(score, score + 0.1, [True, False, None, True] * 10, groups),
    ):
        assert len(image_bytes(figure)) < 150_000
    assert "wrong order" in _words(scores_figure(score, score, list(map(bool, success)), groups))


def test_an_image_is_written_in_the_form_its_name_asks_for(tmp_path: Path) -> None:
    figure = success_figure([("BC", 1, 2)])
    assert save_image(figure, tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert save_image(figure, tmp_path / "a.jpg").read_bytes()[:2] == b"\xff\xd8"


class TestPage:
    def _page(self) -> str:
        page = Page("Model <1> & more", "demos.zarr")
        page.section("Can I trust it?")
        page.verdicts([("yes", "for weighting: `auroc` is 0.98"), ("no", "for stopping")])
        page.section("Figures")
        page.prose("<script>alert(1)</script>")
        page.table(["figure", "value"], [["mse", 0.00234567], ["episodes", 12], ["name", "<b>"]])
        page.image(success_figure([("BC", 1, 2)]), 'a "quoted" caption', alt='BC, "1" of 2')
        page.images([(roc_figure([("final", [0.1, 0.9])], [False, True]), "left", "a perfect ROC curve")])
        return page.html()

    def test_takes_nothing_from_outside(self) -> None:
        html = self._page()
        assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)""", html)
        assert "http" not in html.replace("http-equiv", "")
        assert "@import" not in html
        assert html.count("data:image/png;base64,") == 2

    def test_escapes_text_and_marks_code(self) -> None:
        html = self._page()
        assert "<script>alert" not in html
        assert "Model &lt;1&gt; &amp; more" in html
        assert "<code>auroc</code>" in html
        assert "0.002346" in html

    def test_links_lead_to_files_beside_the_page_only(self) -> None:
        page = Page("report")
        page.prose('[a film](videos/best%201.mp4) and [away](https://example.org) and [up](../x) and [odd]("x)')
        text = page.html()
        assert '<a href="videos/best%201.mp4">a film</a>' in text
        assert text.count("<a ") == 1

    def test_columns_of_numbers_with_units_and_intervals_are_set_to_the_right_together(self) -> None:
        page = Page("report")
        page.table(["figure", "value", "note"], [["success", "58.3 % (7 of 12)", "good"], ["time", "24.1 s", 3]])
        text = page.html()
        assert '<th scope="col">figure</th><th scope="col" class="n">value</th><th scope="col">note</th>' in text
        assert text.count('<td class="n" data-label="value">') == 2
        assert '<td class="w" data-label="note">3</td>' in text

    def test_closes_every_tag_it_opens(self) -> None:
        stack: list[str] = []
        void = {"meta", "img", "br"}

        class Parser(HTMLParser):
            def handle_starttag(self, tag: str, attrs: object) -> None:
                if tag not in void:
                    stack.append(tag)

            def handle_endtag(self, tag: str) -> None:
                assert stack.pop() == tag

        Parser().feed(self._page())
        assert not stack

    def test_refuses_bytes_that_are_not_an_image_and_marks_it_does_not_know(self, tmp_path: Path) -> None:
        page = Page("x")
        with pytest.raises(ValueError, match="PNG or JPEG"):
            page.image(b"GIF89a", alt="x")
        with pytest.raises(ValueError, match="alt"):
            page.image(success_figure([("BC", 1, 2)]), alt="")
        with pytest.raises(ValueError, match="perhaps"):
            page.verdicts([("perhaps", "x")])
        assert page.write(tmp_path / "page.html").read_text().startswith("<!doctype html>")


class TestWhereAPageComesFromAndLeads:
    def test_says_when_by_what_version_and_by_which_command(self) -> None:
        with typed(["eval-reward", "model=my rm", "out=report"]):
            html = Page("x").html()
        assert re.search(r"Made \d{4}-\d\d-\d\d \d\d:\d\d UTC by robo-rm \d+\.\d+", html)
        assert "robo-rm eval-reward &#39;model=my rm&#39; out=report" in html
        assert "robo-rm eval-reward" not in Page("x").html()

    def test_says_what_to_type_next(self) -> None:
        html = Page("x", following="robo-rm score model=rm store=demos.zarr").html()
        assert "<h2>Next</h2>" in html
        assert "<code>robo-rm score model=rm store=demos.zarr</code>" in html
        assert "<h2>Next</h2>" not in Page("x").html()

    def test_names_the_page_of_the_documentation_and_links_where_the_project_has_a_place(self, monkeypatch) -> None:
        page = Page("x", guide="evaluating.md")
        for place, shown in (
            ("https://github.com/OWNER/robo-rm", "<code>docs/evaluating.md</code>"),
            (
                "https://host/robo-rm",
                '<a href="https://host/robo-rm/blob/main/docs/evaluating.md">docs/evaluating.md</a>',
            ),
        ):
            headers = Message()
            headers["Project-URL"] = f"Repository, {place}"
            monkeypatch.setattr(metadata, "metadata", lambda _name, found=headers: found)
            assert shown in page.html()
        assert (ROOT / "docs/evaluating.md").is_file()

    def test_leads_to_the_other_reports_and_they_lead_on(self, tmp_path: Path) -> None:
        for name, title in (
            ("rm_report", "Reward model <rm>"),
            ("policy evaluation", "A policy"),
            ("foreign", "Theirs"),
        ):
            (tmp_path / name).mkdir()
            Page(title).write(tmp_path / name / "report.html")
            if name != "foreign":
                (tmp_path / name / "config.yaml").write_text("out: x")
        html = Page("Third").write(tmp_path / "third/report.html").read_text()
        assert '<a href="../rm_report/report.html">Reward model &lt;rm&gt;</a>' in html
        assert '<a href="../policy%20evaluation/report.html">A policy</a>' in html
        assert "Theirs" not in html
        top = Page("Top").write(tmp_path / "report.html").read_text()
        assert '<a href="rm_report/report.html">' in top
        again = Page("A policy").write(tmp_path / "policy evaluation/report.html").read_text()
        assert '<a href="../report.html">Top</a>' in again

    def test_a_part_of_the_demo_leads_to_the_report_to_come(self, tmp_path: Path) -> None:
        (tmp_path / "parts.json").write_text("{}")
        html = Page("x").write(tmp_path / "reward_report/report.html").read_text()
        assert '<a href="../report.html">The whole demo</a>' in html

    def test_every_guide_that_a_report_names_is_a_page(self) -> None:
        named = set()
        for path in [*(ROOT / "robo_rm").rglob("*report*.py"), *(ROOT / "policies").rglob("report.py")]:
            named |= set(re.findall(r'"([a-z_]+\.md)"', path.read_text()))
        assert len(named) >= 4
        assert [name for name in named if not (ROOT / "docs" / name).is_file()] == []


class TestHowAPageReads:
    """Structure that a browser needs; no browser runs here."""

    def _page(self) -> str:
        page = Page("Model")
        page.table(
            ["metric", "value", "what it is"], [[f"m{i}", i / 7, "a long sentence about it " * 3] for i in range(4)]
        )
        page.table(["kind", "count"], [["a", 1], ["b", 2]])
        page.image(success_figure([("BC", 1, 2)]), alt="one of two")
        return page.html()

    def test_its_policy_allows_its_own_style_and_script_and_nothing_else(self) -> None:
        html = self._page()
        policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html).group(1)  # type: ignore[union-attr]
        for kind, tag in (("style", "style"), ("script", "script")):
            inside = re.search(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL).group(1)  # type: ignore[union-attr]
            digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
            assert f"{kind}-src 'sha256-{digest}'" in policy
        assert policy.startswith("default-src 'none'; img-src data:;")
        assert not re.search(r"\son\w+=|\sstyle=", re.sub(r"<script>.*</script>", "", html, flags=re.DOTALL))

    def test_it_has_a_dark_style_with_every_colour_of_the_light_one(self) -> None:
        css = (TEMPLATES / "page.css").read_text()
        light, dark = re.findall(r":root \{([^}]*)\}", css)[:2]
        assert "prefers-color-scheme: dark" in css
        assert re.findall(r"--\w+", light) == re.findall(r"--\w+", dark)
        # What is not a variable must be readable on both: white on a mark's own colour, paper under an image.
        rest = css.replace(light, "").replace(dark, "")
        assert set(re.findall(r"#[0-9a-f]{3,6}\b", rest)) == {"#fff", "#2e8b57", "#c8453b", "#b36b12", "#66727f"}

    def test_text_is_readable_on_its_ground_in_both_styles(self) -> None:
        css = (TEMPLATES / "page.css").read_text()
        for block in re.findall(r":root \{([^}]*)\}", css)[:2]:
            colour = dict(re.findall(r"--(\w+): (#\w+)", block))
            for ink in ("ink", "faint", "link"):
                for ground in ("page", "card"):
                    assert contrast(colour[ink], colour[ground]) >= 4.5, (ink, ground, block)
        for mark in re.findall(r"background: (#\w{6}); \}", css):
            assert contrast("#fff", mark) >= 3.0, mark  # large bold signs

    def test_wide_tables_stack_in_a_narrow_window_with_the_names_of_their_columns(self) -> None:
        html = self._page()
        assert html.count('<table class="stacked">') == 1
        assert '<td class="t" data-label="what it is">' in html
        assert html.count("<table>") == 1
        css = (TEMPLATES / "page.css").read_text()
        narrow = css[css.index("@media (max-width") :]
        assert ".stacked thead { display: none; }" in narrow
        assert "attr(data-label)" in narrow

    def test_nothing_is_cut_off_at_the_right_edge(self) -> None:
        css = (TEMPLATES / "page.css").read_text()
        assert "overflow-wrap: anywhere" in css[: css.index("main {")]
        assert "img { max-width: 100%;" in css
        assert "white-space: pre-wrap" in css
        assert not re.search(r"(?<!max-)(?<!min-)width: \d{3,}px", css)

    def test_a_table_is_sortable_by_its_heads_with_the_script_alone(self) -> None:
        html = self._page()
        assert "aria-sort" in html
        assert "<button" not in re.sub(r"<script>.*</script>", "", html, flags=re.DOTALL)


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, WCAG 2.2."""

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_a_long_title_is_shortened_beside_the_legend_and_keeps_which_episode_it_is() -> None:
    title = "Pick up the yellow bottle on the table and put it into the box on the left, episode 3e89e43b"
    words = _words(episode_figure(replace(_view(), title=title)))
    assert title not in words
    assert "Pick up the yellow bottle on th…, episode 3e89e43b" in words


def test_stages_are_counted_from_0_as_in_the_settings() -> None:
    words = _words(confusion_figure(np.array([[3, 1], [0, 2]]), ["reach", "grasp"]))
    assert "reach  0" in words
    assert "0 open the drawer" in _words(episode_figure(_view()))


def test_a_title_in_a_script_that_no_font_has_is_drawn_without_a_word():
    from robo_rm.report.style import image_bytes, new_figure, write_title

    figure = new_figure(2, 1)
    write_title(figure, "\u628a\u7ea2\u8272\u65b9\u5757\u653e\u8fdb\u76d2\u5b50 \u0e2b\u0e22\u0e34\u0e1a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert image_bytes(figure)
