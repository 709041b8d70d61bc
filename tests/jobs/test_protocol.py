import flax.linen as nn
import numpy as np
import pytest

from jnnk import InputError, models
from jnnk.cli import configs
from jnnk.cli.parser import make_parser
from jnnk.data import load
from jnnk.jobs import protocol as job
from jnnk.report.sections.protocol import protocol_sections
from jnnk.runs import protocols
from jnnk.runs.folder import create_run
from jnnk.runs.json_files import read_json, read_json_lines
from jnnk.runs.records import ProtocolResult, TrialSummary, over_seeds
from jnnk.runs.settings import TrainConfig

CONFIG = protocols.ProtocolConfig(
    scratch=True, epochs=2, retrain_epochs=1, batch_size=64, optimizer="sgd", learning_rate=0.1,
    l1=1e-3, threshold=0.07, criteria=("det", "weight"), seeds=(0, 1),
)  # fmt: skip


class Net(nn.Module):
    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.relu(nn.Conv(8, (3, 3), strides=2, name="conv1")(images))
        x = nn.relu(nn.Conv(8, (3, 3), name="conv2")(x))
        return nn.Dense(10, name="fc")(x.reshape(len(x), -1)), {"conv2": x}


@pytest.fixture(scope="module")
def dataset():
    return load("digits")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return create_run(tmp_path_factory.mktemp("runs") / "run", TrainConfig()._asdict())


@pytest.fixture(scope="module")
def done(run, dataset):
    return job.protocol(run, Net(), dataset, "tiny", CONFIG)


def test_every_criterion_prunes_the_same_network(done):
    trials = done.trials
    assert [(t.seed, t.criterion) for t in trials] == [
        (seed, criterion) for seed in CONFIG.seeds for criterion in CONFIG.criteria
    ]
    starts = {(t.seed, t.accuracy_l1) for t in trials}
    assert len(starts) == 2 and len({accuracy for _, accuracy in starts}) == 2
    for trial in trials:
        assert 0 < trial.pruned < 1 and trial.revived_weights == 0
        assert trial.accuracy_retrained > 0.3
        assert trial.score == pytest.approx(
            trial.accuracy_retrained / trial.accuracy_l1 * (1 - trial.params)
        )


def test_history_ends_where_pruning_begins(done):
    last, trial = done.history[-1], done.trials[0]
    assert (last.epoch, trial.criterion) == (CONFIG.epochs, "det")
    assert last.shares["det"] == pytest.approx(trial.pruned)


def test_the_l1_penalty_is_on_in_training_and_off_in_retraining(run, done):
    folder = run.path / "protocol" / "tiny" / "seed0"
    assert all(line["penalty"] > 0 for line in read_json_lines(folder / "l1" / "metrics.jsonl"))
    assert all(line["penalty"] == 0 for line in read_json_lines(folder / "det" / "metrics.jsonl"))


def test_mean_and_spread_over_seeds(done):
    values = [t.pruned for t in done.trials if t.criterion == "weight"]
    (row,) = [each for each in done.summary if each.criterion == "weight"]
    assert row.seeds == 2
    assert row.pruned.mean == pytest.approx(np.mean(values))
    assert row.pruned.std == pytest.approx(abs(values[0] - values[1]) / np.sqrt(2))
    single = over_seeds(TrialSummary, done.trials[:2], by=("criterion",))
    assert [each.pruned.std for each in single] == [None, None]


def test_a_second_run_does_only_what_is_new(run, dataset, done, monkeypatch):
    calls = []
    monkeypatch.setattr(
        job, "make_masks", lambda *_, criterion, **__: calls.append(criterion) or 1 / 0
    )
    again = job.protocol(run, Net(), dataset, "tiny", CONFIG)
    assert again.trials == done.trials and calls == []
    more = CONFIG._replace(criteria=(*CONFIG.criteria, "min_eig"))
    with pytest.raises(ZeroDivisionError):
        job.protocol(run, Net(), dataset, "tiny", more)
    assert calls == ["min_eig"]


def test_the_report_shows_it(run, done):
    result = read_json(run.path / "protocol" / "tiny" / "result.json", kind=ProtocolResult)
    assert result == done
    (section,) = protocol_sections(run, {"tiny": result})
    header, rows = section.table
    assert len(rows) == 2 and all(len(row) == len(header) for row in rows)
    assert (run.path / "protocol" / "tiny" / "tables" / "summary.tex").exists()
    assert (run.path / "figures" / "protocol_tiny.png").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"criteria": ("random",)}, "random"),
        ({"seeds": ()}, "seeds"),
        ({"batch_size": 10_000}, "10000"),
        ({"threshold": 0.1}, "threshold"),
    ],
)
def test_bad_settings_are_refused(run, dataset, done, changes, message):
    with pytest.raises(InputError, match=message):
        job.protocol(run, Net(), dataset, "tiny", CONFIG._replace(**changes))


def test_going_on_from_a_network_needs_one(run, dataset):
    with pytest.raises(InputError, match="no trained network"):
        job.protocol(run, Net(), dataset, "given", CONFIG._replace(scratch=False))


def test_the_papers_networks_and_protocols_exist():
    for model, _, name in protocols.PAPER_NETWORKS:
        assert name in protocols.PROTOCOLS
        assert models.create(model, num_classes=10)
    paper = protocols.PROTOCOLS["paper"]
    assert paper.epochs + paper.retrain_epochs == 400
    assert (paper.optimizer, paper.learning_rate, paper.batch_size) == ("adam", 1e-3, 128)
    assert (paper.l1, paper.threshold) == (1e-4, 1e-4)


def test_options_name_a_protocol_and_may_change_its_seeds():
    parse = make_parser().parse_args
    args = parse(["prune", "RUN", "--protocol", "paper", "--seeds", "7", "--criteria", "det"])
    config = configs.protocol_config(args)
    assert config == protocols.PROTOCOLS["paper"]._replace(seeds=(7,), criteria=("det",))
    with pytest.raises(InputError, match="short"):
        configs.protocol_config(parse(["prune", "RUN", "--protocol", "longest"]))
