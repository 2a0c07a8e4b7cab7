"""The bench: its contenders train alike, its counts are right, its table and picture are drawn."""

from __future__ import annotations

import json

import matplotlib.pyplot as plt
import pytest
import torch

from sftlab._internal.paths import ROOT
from sftlab.errors import WorkbookError
from sftlab.exercises.record import read, results_path, runs
from sftlab.lora import inject_lora
from sftlab.train import planned_batches
from tools.benchmarks import __main__ as bench
from tools.benchmarks import measure, notebooks, picture, profile
from tools.benchmarks.contenders import BATCH, CONTENDERS, METHODS, fresh, plan, ready, rows
from tools.benchmarks.limit import linear_shapes, operations_of_steps, product_rate

BY_NAME = {who.name: who for who in CONTENDERS}
STEPS = 4
WHERE = {
    "machine": {"processor": "a processor", "threads": 2, "gpu": "none"},
    "versions": {"torch": "2.0"},
    "date": "today",
}
RATES = {"ours": 100.0, "transformers": 50.0}
MADE_UP = {
    "limit": {"limit": 2e11, "reached": 1.1e11},
    "profile": {"shares": {"products": 0.75, "the rest": 0.25}, "operations": 9000},
    "memory": {"bytes": 2_340_000_000},
    "decode": {who: dict.fromkeys(("1", "16", "64"), rate) for who, rate in RATES.items()},
    "scaling": {"seconds": 1.25},
    "packing": {"rates": {"padded": [9, 10], "sorted by length": [18, 30], "packed": [27, 40]}},
}


def made_up() -> list[dict]:
    """A run of `make bench` without the bench."""
    found = []
    for wanted in measure.settings():
        if wanted["kind"] == "steps":
            seconds = {who.name: [0.5, 1.0, 0.25] for who in CONTENDERS}
            losses = {who.name: [3.0, 2.0 + 0.1 * i] for i, who in enumerate(CONTENDERS)}
            counts = {"tokens": 100.0, "trained": 30.0}
            found.append({**wanted, "seconds": seconds, "losses": losses, **counts})
        else:
            found.append({**wanted, **MADE_UP[wanted["kind"]]})
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pair", [("ours, fp32", "TRL tuned, fp32"), ("ours, bf16", "TRL tuned, bf16")])  # fmt: skip
def test_our_loop_and_trls_have_the_same_losses(method, pair, capfd):
    ours, theirs = (ready(BY_NAME[name], "almanac", method, STEPS)().losses for name in pair)
    assert len(ours) == len(theirs) == STEPS
    # TRL logs four digits; in bf16 the sums are rounded in another order.
    assert ours == pytest.approx(theirs, abs=1e-3 if "fp32" in pair[0] else 0.02)
    assert ours[0] != pytest.approx(ours[-1], abs=0.02)  # and something was trained


@pytest.mark.parametrize("method", METHODS)
def test_every_batch_is_full(method):
    chosen = planned_batches(rows(), plan(method, 12))
    assert len(chosen) == 12 and {len(batch) for batch in chosen} == {BATCH}


def test_operations_are_those_of_the_products():
    """Frozen weights: x Wᵀ and g W, twice 2·tokens·d_in·d_out, and 6 such products for r rows."""
    model = fresh("almanac", "fp32")
    shapes = linear_shapes(model)
    layers = {k: v for k, v in shapes.items() if k[0] != model.config.vocab_size}
    inject_lora(model, "all-linear", r=8, lora_alpha=16, seed=0)
    ids = torch.ones(1, 16, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    labels[0, -3:] = 1
    batch = {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}
    frozen = sum(n * 2 * 2 * 16 * a * b for (a, b), n in layers.items())
    head = 2 * 2 * 3 * model.config.vocab_size * model.config.hidden_size
    adapters = sum(n * 3 * 2 * 16 * 8 * (a + b) for (a, b), n in layers.items())
    (counted,) = operations_of_steps(model, [batch])
    assert frozen + head + adapters == pytest.approx(counted, rel=0.02)  # attention is the rest


def test_a_profile_tells_products_of_adapters_from_those_of_the_base():
    x, base, narrow = torch.randn(64, 512), torch.randn(512, 512), torch.randn(8, 512)
    found = profile.shares(lambda: (x @ base, x @ narrow.T, x.softmax(-1)), 8)
    assert sum(found["shares"].values()) == pytest.approx(1)
    assert {"products", profile.ADAPTERS, "attention"} <= set(found["shares"])
    assert found["operations"] >= 3
    assert profile.group("aten::mm", [[64, 512], [512, 512]], 8) == "products"
    assert profile.group("aten::mm", [[64, 512], [512, 8]], 8) == profile.ADAPTERS
    assert profile.group("aten::silu", [[64, 512]], 8) == profile.REST


def test_a_rate_is_positive():
    assert product_rate(linear_shapes(torch.nn.Linear(8, 4)), 16, "fp32") > 0


def test_the_table_has_every_contender_and_tells_the_spread():
    table = picture.readme_table(made_up(), WHERE)
    for who in CONTENDERS:
        assert f"| {who.name} | 200 (100–400) |" in table
    assert "a processor, 2 cores, GPU: none, PyTorch 2.0, today" in table
    assert "1.00 × TRL default; " in table
    assert "the 30% of them in responses are trained" in table
    assert "| largest difference from TRL's loss, nats | 0.1000 |" in table
    assert "| peak memory, TRL tuned | 2.34 GB |" in table
    assert "| peak memory, TRL default, which recomputes activations | 2.34 GB |" in table
    assert "| share of that rate in a whole step | 55% |" in table
    assert "| time: products | 75% |" in table
    assert "| operations | 9,000 |" in table
    assert "| embedded, 3 M, `generate()` | 50 | 50 | 50 |" in table
    assert "| padded | 10 tokens/s |" in table
    assert "| packed | ×3.50 (3.00–4.00) |" in table


def test_the_readme_shows_what_was_recorded():
    table = picture.readme_table(runs("speed"), read("speed")["provenance"][0])
    assert table in (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8"), "run  make bench"


def test_the_farthest_losses():
    assert picture.farthest(
        made_up(), "almanac", "lora", "ours, fp32", "TRL tuned, fp32"
    ) == pytest.approx(0.1)


def test_the_picture_draws(capfd):
    figure = picture.draw(made_up())
    figure.draw_without_rendering()
    plt.close(figure)
    assert capfd.readouterr().err == ""


def test_settings_are_told_apart():
    found = measure.settings()
    assert len({repr(sorted(s.items())) for s in found}) == len(found)


def test_seconds_of_notebooks_from_a_report(tmp_path):
    report = tmp_path / "report.xml"
    cells = [
        ("notebooks.01_a.ipynb", 1.5),
        ("notebooks.01_a.ipynb", 0.5),
        ("notebooks.02_b.ipynb", 7),
    ]
    lines = "".join(f'<testcase classname="{name}" time="{time}"/>' for name, time in cells)
    report.write_text(f"<testsuites><testsuite>{lines}</testsuite></testsuites>")
    assert notebooks.seconds(report) == {"02_b": 7, "01_a": 2}
    assert "2 notebooks, 9 s, median 4.5 s" in notebooks.table(notebooks.seconds(report))
    with pytest.raises(WorkbookError, match="make bench-notebooks"):
        notebooks.seconds(tmp_path / "none.xml")


class TestTheCommand:
    """`make bench`, with a made-up measurement and places of its own."""

    @pytest.fixture
    def places(self, tmp_path, monkeypatch):
        record = tmp_path / "results" / "speed.json"
        record.parent.mkdir()
        record.write_text('{"provenance": [], "runs": []}', encoding="utf-8")
        readme = tmp_path / "benchmarks.md"
        readme.write_text(f"before\n{bench.START}\nold\n{bench.END}\nafter\n", encoding="utf-8")
        monkeypatch.setattr(
            bench, "results_path", lambda name, folder=record.parent: results_path(name, folder)
        )
        monkeypatch.setattr(bench, "cache_folder", lambda: tmp_path / "cache")
        monkeypatch.setattr(bench, "PAGE", readme)
        monkeypatch.setattr(bench, "PICTURE", tmp_path / "speed.png")
        return record, readme, tmp_path / "cache" / "bench" / "speed.json"

    def measured(self, monkeypatch, stop=None):
        left = [stop]

        def run(**setting):
            if left[0] is not None:
                left[0] -= 1
                if left[0] < 0:
                    raise KeyboardInterrupt
            return next(
                {k: v for k, v in made.items() if k not in setting}
                for made in made_up()
                if setting.items() <= made.items()
            )

        monkeypatch.setattr(bench, "run", run)

    def test_the_old_record_stays_until_the_new_one_is_whole(self, places, monkeypatch, capsys):
        record, readme, unfinished = places
        old = record.read_bytes(), readme.read_bytes()
        self.measured(monkeypatch, stop=3)
        assert bench.main() == 1
        assert (record.read_bytes(), readme.read_bytes()) == old
        assert len(json.loads(unfinished.read_text())["runs"]) == 3  # kept: the bench goes on

        self.measured(monkeypatch)
        assert bench.main() == 0
        assert len(json.loads(record.read_text())["runs"]) == len(measure.settings())
        assert not unfinished.exists()
        told = readme.read_text(encoding="utf-8")
        assert told.startswith("before\n") and told.endswith("\nafter\n") and "| ours, fp32" in told

    def test_a_whole_record_stays_where_a_measurement_fails(self, places, monkeypatch, capsys):
        record, _, _ = places
        self.measured(monkeypatch)
        assert bench.main() == 0
        whole = record.read_bytes()

        def fail(**_):
            raise WorkbookError("measuring failed: why")

        monkeypatch.setattr(bench, "run", fail)
        assert bench.main() == 1
        assert record.read_bytes() == whole
        assert "measuring failed: why" in capsys.readouterr().err

    def test_runs_of_other_settings_do_not_come_into_the_record(self, places, monkeypatch, capsys):
        record, _, unfinished = places
        self.measured(monkeypatch, stop=1)
        bench.main()
        found = json.loads(unfinished.read_text())
        found["runs"].append({"settings": {"kind": "gone"}, "result": {}, "sitting": 0})
        unfinished.write_text(json.dumps(found))
        self.measured(monkeypatch)
        assert bench.main() == 0
        assert "gone" not in record.read_text()


def test_packed_steps_are_measured_in_all_layouts(monkeypatch):
    monkeypatch.setattr(measure, "PACKED_EXAMPLES", {"almanac": 10})
    rates = measure.packing("almanac", "short")["rates"]
    assert list(rates) == ["padded", "sorted by length", "packed"]
    assert all(len(each) == measure.PACKED_SITTINGS and min(each) > 0 for each in rates.values())
