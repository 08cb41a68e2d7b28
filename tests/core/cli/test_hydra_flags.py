"""Flags and overrides of Hydra, given to ``robo-rm`` as a real process, with a third party's command beside ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

MODULE = '''"""Write down the settings."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import yaml
from omegaconf import MISSING

CONFIG_FOLDER = Path(__file__).parent / "note_configs"


@dataclass(frozen=True)
class Pen:
    colour: str = "black"
    """Its colour."""


@dataclass(frozen=True)
class Config:
    out: str = MISSING
    """Folder to write to."""
    text: str = "none"
    """What to write."""
    count: int = 1
    """How often."""
    pen: Pen = field(default_factory=Pen)
    """With what."""


def run(config):
    from robo_core.errors import ConfigError
    from robo_core.outputs import OutputFolder

    if config.count < 0:
        raise ConfigError("count is negative")
    OutputFolder(config.out, config)
    print("wrote", config.text, config.count)
'''
# A launcher of a user's, found as those of joblib and submitit are: each job is pickled to another process.
LAUNCHER = """from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.core.singleton import Singleton
from hydra.core.utils import run_job, setup_globals
from hydra.plugins.launcher import Launcher
from joblib import Parallel, delayed
from omegaconf import open_dict


@dataclass
class ApartConf:
    _target_: str = "hydra_plugins.apart.ApartLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="apart", node=ApartConf)


def job(number, overrides, context, config, task, state):
    setup_globals()
    Singleton.set_state(state)
    sweep = context.config_loader.load_sweep_config(config, overrides)
    with open_dict(sweep):
        sweep.hydra.job.id, sweep.hydra.job.num = str(number), number
    return run_job(task, sweep, "hydra.sweep.dir", "hydra.sweep.subdir", context)


class ApartLauncher(Launcher):
    def setup(self, *, hydra_context, task_function, config):
        self.given = hydra_context, config, task_function

    def launch(self, job_overrides, initial_job_idx):
        context, config, task = self.given
        state = Singleton.get_state()
        return Parallel(n_jobs=2, backend="loky")(
            delayed(job)(initial_job_idx + n, list(words), context, config, task, state)
            for n, words in enumerate(job_overrides)
        )
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder that stands for a user's packages: the command ``note`` with its configs, and a launcher."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "note_configs/pen").mkdir(parents=True)
    (folder / "note_command.py").write_text(MODULE)
    (folder / "note_configs/note.yaml").write_text(
        "defaults: [note_schema, pen: blue, _self_, experiment: null]\ncount: 2\n"
    )
    (folder / "note_configs/pen/blue.yaml").write_text("colour: blue\n")
    (folder / "note_configs/pen/red.yaml").write_text("colour: red\n")
    (folder / "hydra_plugins").mkdir()
    (folder / "hydra_plugins/apart.py").write_text(LAUNCHER)
    information = folder / "note-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: note\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[robo_rm.commands]\nnote = note_command\n")
    return folder


@pytest.fixture
def robo_rm(site, tmp_path):
    """Run ``robo-rm`` in an empty folder; returns (exit code, output, errors)."""

    def run(*words: str, **more: str) -> tuple[int, str, str]:
        environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", **more}
        done = subprocess.run(
            [sys.executable, "-m", "robo_core.cli.main", *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return run


def written(folder: Path) -> dict[str, object]:
    return yaml.safe_load((folder / "config.yaml").read_text())


def test_a_single_run_leaves_nothing_but_its_out(robo_rm, tmp_path):
    assert robo_rm("note", "out=a", "text=one") == (0, "wrote one 2\n", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]
    assert written(tmp_path / "a") == {"out": "a", "text": "one", "count": 2, "pen": {"colour": "blue"}}


def test_hydra_writes_its_own_folder_where_asked(robo_rm, tmp_path):
    code, _, err = robo_rm("note", "out=a", "hydra.run.dir=runs/one", "hydra.output_subdir=.hydra")
    assert (code, err) == (0, "")
    assert yaml.safe_load((tmp_path / "runs/one/.hydra/overrides.yaml").read_text()) == ["out=a"]


def test_cfg_shows_the_config(robo_rm):
    code, out, err = robo_rm("note", "--cfg", "job", "pen=red")
    assert (code, err) == (0, "")
    assert yaml.safe_load(out) == {"out": "???", "text": "none", "count": 2, "pen": {"colour": "red"}}
    assert robo_rm("note", "--cfg", "job", "--package", "pen")[1] == "# @package pen\ncolour: blue\n"
    words = ("note", "out=a", "text=${out}/b", "--cfg", "job")
    assert "text: ${out}/b" in robo_rm(*words)[1]
    assert "text: a/b" in robo_rm(*words, "--resolve")[1]
    hydra = yaml.safe_load(robo_rm("note", "--cfg", "hydra")[1])["hydra"]
    assert (hydra["run"]["dir"], hydra["output_subdir"], hydra["job"]["name"]) == (".", None, "note")


def test_info_shows_where_configs_come_from(robo_rm, site):
    code, out, err = robo_rm("note", "--info", "searchpath")
    assert (code, err) == (0, "")
    assert f"{site}/note_configs" in out
    assert out.index("note_configs") < out.index("/configs ", out.index("note_configs") + 20)
    assert "pen/blue" in robo_rm("note", "--info", "defaults")[1]
    assert "colour: blue" in robo_rm("note", "--info", "config")[1]
    assert robo_rm("note", "--info")[0] == 0


@pytest.mark.parametrize("flag", ["--multirun", "-m"])
def test_each_job_of_a_multirun_has_a_folder_of_its_own(robo_rm, tmp_path, flag):
    code, out, err = robo_rm("note", "out=a", "count=1,3", "pen=red,blue", "text=x", flag)
    assert (code, err) == (0, "")
    assert sorted(path.name for path in (tmp_path / "a").iterdir() if path.is_dir()) == [
        "count=1,pen=blue", "count=1,pen=red", "count=3,pen=blue", "count=3,pen=red",
    ]  # fmt: skip
    assert written(tmp_path / "a/count=3,pen=red") == {
        "out": "a/count=3,pen=red",
        "text": "x",
        "count": 3,
        "pen": {"colour": "red"},
    }
    assert out.count("wrote x") == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]
    assert robo_rm("note", "out=a", "count=1,3", "pen=red,blue", "text=x", flag)[0] == 0  # again, to resume


def test_a_multirun_over_out_writes_to_each(robo_rm, tmp_path):
    assert robo_rm("note", "-m", "out=a,b/c")[0] == 0
    assert written(tmp_path / "b/c")["out"] == "b/c"
    assert written(tmp_path / "a")["out"] == "a"


def test_the_folders_of_jobs_may_be_named_as_in_hydra(robo_rm, tmp_path):
    words = ("note", "-m", "out=a", "count=1,3", "hydra.sweep.dir=sweeps", "hydra.sweep.subdir=${hydra.job.num}")
    assert robo_rm(*words)[0] == 0
    assert written(tmp_path / "sweeps/1") == {"out": "sweeps/1", "text": "none", "count": 3, "pen": {"colour": "blue"}}


def test_a_job_that_fails_says_so_and_the_others_run(robo_rm, tmp_path):
    code, _, err = robo_rm("note", "-m", "out=a", "count=-1,3")
    assert code == 2
    assert "job 0 (count=-1): count is negative" in err
    assert "Traceback" not in err
    assert (tmp_path / "a/count=3/config.yaml").is_file()


@pytest.mark.parametrize("launcher", ["basic", "apart"])
def test_a_launcher_runs_the_jobs(robo_rm, tmp_path, launcher):
    code, _, err = robo_rm("note", "-m", "out=a", "text=one,two", f"hydra/launcher={launcher}")
    assert (code, err) == (0, "")
    assert written(tmp_path / "a/text=two")["text"] == "two"


def test_our_commands_run_under_another_launcher(robo_rm, tmp_path):
    (tmp_path / "nothing.zarr").mkdir()
    words = ("train-policy", "-m", "store=nothing.zarr", "out=a", "policy=act,diffusion", "hydra/launcher=apart")
    code, _, err = robo_rm(*words)
    assert code == 2
    assert "job 1 (policy=diffusion): " in err
    assert "Traceback" not in err


def test_a_launcher_that_is_not_installed_is_one_line(robo_rm):
    code, _, err = robo_rm("note", "-m", "out=a", "count=1,2", "hydra/launcher=submitit_slurm")
    assert (code, err.count("\n")) == (2, 1)
    assert "hydra/launcher=submitit_slurm is not one of: apart, basic" in err


def test_a_recipe_may_be_a_multirun(robo_rm, tmp_path):
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/grid.yaml").write_text(
        "# @package _global_\ncommand: note\ntext: grid\n"
        "hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      count: 1,3\n"
    )
    assert robo_rm("note", "--config-dir", "conf", "experiment=grid", "out=a")[0] == 0
    assert written(tmp_path / "a/count=3")["text"] == "grid"


def test_keys_are_added_overridden_and_deleted(robo_rm, tmp_path):
    code, _, err = robo_rm("note", "out=a", "+root=deep", "text=${root}/b", "++count=7")
    assert code == 0
    assert err == "robo-rm note: no setting is called root; interpolations alone see it\n"
    assert (written(tmp_path / "a")["text"], written(tmp_path / "a")["count"]) == ("deep/b", 7)
    assert robo_rm("note", "out=b", "~count", "~pen")[0] == 0
    assert written(tmp_path / "b") == {"out": "b", "text": "none", "count": 1, "pen": {"colour": "black"}}


def test_a_user_brings_a_folder_of_configs(robo_rm, tmp_path):
    conf = tmp_path / "conf"
    for name in ("pen", "policy", "experiment"):
        (conf / name).mkdir(parents=True)
    (conf / "pen/green.yaml").write_text("colour: green\n")
    (conf / "mine.yaml").write_text("defaults: [note, _self_]\ntext: mine\n")
    (conf / "experiment/loud.yaml").write_text(
        "# @package _global_\ncommand: note\ndefaults: [override /pen: green]\ntext: LOUD\n"
    )
    (conf / "policy/act.yaml").write_text("name: act\n")
    assert robo_rm("note", "--config-dir", "conf", "out=a", "pen=green")[0] == 0
    assert written(tmp_path / "a")["pen"] == {"colour": "green"}
    assert robo_rm("note", "out=b", "--config-dir=conf", "--config-name", "mine")[0] == 0
    assert (written(tmp_path / "b")["text"], written(tmp_path / "b")["count"]) == ("mine", 2)
    assert robo_rm("note", "-cd", "conf", "experiment=loud", "out=c")[0] == 0
    assert written(tmp_path / "c")["text"] == "LOUD"
    assert "pen=blue|green|red" in robo_rm("note", "--config-dir", "conf", "--help")[1]
    # A group there takes no command its plain setting of that name.
    code, out, _ = robo_rm("eval-policy", "--config-dir", "conf", "policy=some/folder", "--cfg", "job")
    assert (code, yaml.safe_load(out)["policy"]) == (0, "some/folder")


def test_the_shell_is_completed(robo_rm):
    code, out, err = robo_rm("note", "--shell-completion", "install=bash")
    assert (code, err) == (0, "")
    assert "complete -o nospace" in out
    assert "complete -o nospace" in robo_rm("-sc", "install=bash")[1]
    asked = {"robo-rm no": {"note"}, "robo-rm import le": {"lerobot"}, "robo-rm note pen=": {"pen=blue", "pen=red"}}
    for line, expected in asked.items():
        code, out, err = robo_rm("-sc", "query=bash", COMP_LINE=line)
        assert (code, err, set(out.split())) == (0, "", expected), line
    assert "policy=act" in robo_rm("-sc", "query=bash", COMP_LINE="robo-rm train-policy policy=")[1]


def test_hydra_shows_its_own_help_and_tracebacks(robo_rm):
    assert "--multirun,-m" in robo_rm("note", "--hydra-help")[1]
    code, _, err = robo_rm("note", "cuont=1", HYDRA_FULL_ERROR="1")
    assert code == 1
    assert "Traceback" in err
