"""One split of a store: in proportion, the same for every command, kept whatever is edited or added later."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moving_square import make_store

from robo_core.errors import ConfigError, CorruptionError
from robo_datasets import DemoStore
from robo_datasets.doctor.integrity import check_store_files
from robo_rm.labels.grouping import GroupedStore
from robo_rm.labels.split import held_out_count, labelled_episodes, split_episodes, split_order, store_split


def episode(number, success=True, task="a"):
    return SimpleNamespace(uuid=f"e{number:03d}", success=success, task=task)


def held(store, holdout, seed=0, episodes=None):
    return {e.uuid for e in store_split(store, list(store) if episodes is None else episodes, holdout, seed)[1]}


@given(st.integers(1, 60), st.integers(0, 40), st.integers(1, 5), st.integers(0, 3))
def test_every_beginning_has_failures_in_proportion(good, bad, tasks, seed):
    episodes = [episode(n, n < good, str(n % tasks)) for n in range(good + bad)]
    order = split_order(episodes, seed)
    assert sorted(order) == [e.uuid for e in episodes]
    failed = {e.uuid for e in episodes if not e.success}
    for count in range(len(order) + 1):
        share = count * bad / (good + bad)
        assert abs(sum(uuid in failed for uuid in order[:count]) - share) <= 1


def test_tasks_come_evenly_and_the_order_given_does_not_matter():
    episodes = [episode(n, True, "ab"[n % 2]) for n in range(40)]
    order = split_order(episodes, 1)
    assert order == split_order(episodes[::-1], 1)
    assert order != split_order(episodes, 2)
    assert sum(int(uuid[1:]) % 2 for uuid in order[:8]) == 4


@pytest.mark.parametrize(("holdout", "count"), [(0, 0), (3, 3), (8.0, 8), (0.1, 2), (0.01, 1), (1, 1)])
def test_a_number_or_a_share(holdout, count):
    assert held_out_count(holdout, 20) == count


@pytest.mark.parametrize("holdout", [-1, 2.5, float("nan"), float("inf")])
def test_what_is_neither_is_refused(holdout):
    with pytest.raises(ConfigError, match="holdout="):
        held_out_count(holdout, 20)
    with pytest.raises(ConfigError, match="leaves nothing to train on"):
        split_episodes([episode(n) for n in range(4)], 4, 0)


@pytest.mark.parametrize(
    ("episodes", "advice"), [(1, "give holdout=0 "), (2, "holdout=1,"), (3, "holdout=1,"), (4, "=2,")]
)
def test_what_is_advised_where_nothing_is_left_can_be_done(episodes, advice):
    with pytest.raises(ConfigError, match=f"leaves nothing to train on: .*{advice}"):
        split_episodes([episode(n) for n in range(episodes)], 8, 0)


def test_errors_name_the_setting_that_asked_for_too_much():
    with pytest.raises(ConfigError, match=r"^validation=5 leaves nothing to train on: 4 episodes are left"):
        split_episodes([episode(n) for n in range(4)], 5, 0, "validation")
    with pytest.raises(ConfigError, match=r"^validation=-1: give"):
        split_episodes([episode(n) for n in range(4)], -1, 0, "validation")


def test_fewer_are_some_of_more_and_another_seed_is_another_split(tmp_path):
    store = make_store(tmp_path / "s.zarr", episodes=12, failures=4, frames=5)
    assert held(store, 2) < held(store, 4) < held(store, 6)
    assert held(store, 6, seed=1) != held(store, 6)


def test_outcomes_edited_and_episodes_added_change_nobodys_part(tmp_path):
    store = make_store(tmp_path / "s.zarr", episodes=10, failures=3, frames=5)
    before, hashed = held(store, 4), store.content_hash()
    assert store.content_hash() == hashed, "keeping a split changes nothing that is trained on"
    for uuid in store.uuids[:5]:
        store.set_success(uuid, False)
    other = make_store(tmp_path / "more.zarr", episodes=6, frames=7)
    store = DemoStore.open(store.path)
    for added in other:
        with store.writer(task="another", success=True) as writer:
            for t in range(added.length):
                frame = {key: added[key][t] for key in store.features}
                writer.add(frame, timestamp=t / 10, stage=int(added.stage[t]))
    grown = DemoStore.open(store.path)
    assert len(grown) == 16
    assert held(grown, 4) == before
    assert not list(check_store_files(grown.path)), "doctor knows the folder"


def test_a_share_of_a_grown_store_takes_from_what_is_new(tmp_path):
    store = make_store(tmp_path / "s.zarr", episodes=10, frames=5)
    first, trained = held(store, 0.2), set(store.uuids) - held(store, 0.2)
    with_more = DemoStore.open(store.path)
    for n in range(10):
        source = store[n]
        with with_more.writer(task="t", success=True) as writer:
            for t in range(source.length):
                writer.add({key: source[key][t] for key in store.features}, timestamp=t / 10, stage=0)
    grown = held(with_more, 0.2)
    assert first < grown
    assert len(grown) == 4
    assert not grown & trained


def test_a_removed_episode_is_no_ones(tmp_path):
    store = make_store(tmp_path / "s.zarr", episodes=8, frames=5)
    gone = next(iter(held(store, 3)))
    store.remove([gone])
    assert len(held(DemoStore.open(store.path), 3)) == 3
    assert gone not in held(DemoStore.open(store.path), 3)


def test_labelled_episodes_are_held_out_first_so_that_both_kinds_of_training_agree(tmp_path):
    store = make_store(tmp_path / "s.zarr", episodes=10, frames=5)
    for uuid in store.uuids[:6]:
        store.set_stages(uuid, np.full(store.episode(uuid).length, -1))
    store = DemoStore.open(store.path)
    by_policy = held(store, 3)
    assert by_policy == held(store, 3, episodes=labelled_episodes(store))
    whole_task = GroupedStore(store, {"task": []})
    assert held(whole_task, 3) == by_policy


def test_a_store_that_cannot_keep_it_has_the_same_split(tmp_path, monkeypatch):
    store = make_store(tmp_path / "s.zarr", episodes=8, frames=5)

    def refuses(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("robo_rm.labels.split.replace_durably", refuses)
    without = held(store, 3)
    monkeypatch.undo()
    assert held(store, 3) == without


def test_a_damaged_split_is_named(tmp_path):
    store = make_store(tmp_path / "s.zarr", episodes=8, frames=5)
    held(store, 3)
    path = store.path / "splits" / "seed-0.json"
    path.write_bytes(path.read_bytes().replace(b'"seed": 0', b'"seed": 1'))
    with pytest.raises(CorruptionError, match=r"seed-0\.json was changed"):
        held(store, 3)
