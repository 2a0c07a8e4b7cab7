"""The training loop: what it changes, how it is stopped and resumed, and what it refuses."""

from __future__ import annotations

import copy
import errno
import math
import os
import signal
import threading

import pytest
import torch

from sftlab.data import collate
from sftlab.errors import WorkbookError
from sftlab.lora import inject_lora, lora_parameters
from sftlab.loss import model_loss
from sftlab.train import TrainConfig, sft_train, train_loop, train_step

CONFIG = TrainConfig(learning_rate=1e-2, num_train_epochs=2, batch_size=3, save_steps=2)
STEPS = 6  # eight rows, three a batch, twice


def with_lora(model, dropout=0.0):
    return inject_lora(
        copy.deepcopy(model), "all-linear", r=2, lora_alpha=4, lora_dropout=dropout, seed=0
    )


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(first, second):
    """Equal to the bit."""
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def interrupt_after(step):
    def on_step(done, loss):
        if done == step:
            raise KeyboardInterrupt

    return on_step


class TestConfig:
    def test_the_rate_rises_linearly_then_falls_to_almost_nothing(self):
        config = TrainConfig(learning_rate=1.0, warmup_ratio=0.2)
        rates = [config.learning_rate_at(step, 20) for step in range(20)]
        assert rates[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
        assert rates[4:] == sorted(rates[4:], reverse=True)
        assert config.learning_rate_at(12, 20) == pytest.approx(0.5)  # half of the way down
        assert 0 < rates[-1] < 0.01

    def test_a_constant_rate_stays(self):
        config = TrainConfig(learning_rate=1.0, warmup_ratio=0.2, lr_scheduler_type="constant")
        assert [config.learning_rate_at(step, 10) for step in range(10)] == [0.5] + [1.0] * 9

    def test_a_single_step_has_the_full_rate(self):
        assert TrainConfig(learning_rate=1.0).learning_rate_at(0, 1) == 1.0

    @pytest.mark.parametrize(
        ("setting", "told"),
        [
            ({"num_train_epochs": 0}, "epochs is 0; it must be at least 1"),
            ({"max_steps": 0}, "max_steps is 0"),
            ({"batch_size": 0}, "batch_size is 0"),
            ({"micro_batch_size": -1}, "micro_batch_size is -1"),
            ({"save_steps": 0}, "save_steps is 0"),
            ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be above 0"),
            ({"learning_rate": math.nan}, "learning_rate is nan"),
            ({"precision": "fp8"}, "precision is 'fp8'; use one of auto, fp32, bf16"),
            (
                {"lr_scheduler_type": "linear"},
                'lr_scheduler_type is \'linear\'; use "cosine" or "constant"',
            ),
            ({"warmup_ratio": 100}, "warmup_ratio is 100; it is a share"),
        ],
    )
    def test_a_setting_that_makes_no_sense_is_refused(self, setting, told):
        with pytest.raises(WorkbookError, match=told):
            TrainConfig(**setting)


class TestStep:
    def test_returns_the_loss_before_the_step_and_lowers_it(self, tiny_model, rows):
        batch = collate(rows, 0)
        total, count = model_loss(tiny_model, batch)
        before = (total / count).item()
        optimizer = torch.optim.SGD(tiny_model.parameters(), lr=0.1)
        assert train_step(tiny_model, batch, optimizer) == pytest.approx(before)
        assert train_step(tiny_model, batch, optimizer) < before

    @pytest.mark.parametrize("size", [1, 3, 5, 8, 99])
    def test_micro_batches_of_unequal_token_counts_leave_the_gradient_as_it_is(
        self, tiny_model, rows, size
    ):
        def gradients(micro_batch_size):
            model = copy.deepcopy(tiny_model).double()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
            loss = train_step(model, collate(rows, 0), optimizer, 1e9, micro_batch_size)
            return loss, [p.grad for p in model.parameters()]

        (whole, expected), (cut, found) = gradients(None), gradients(size)
        assert cut == pytest.approx(whole, abs=1e-12)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)

    def test_the_gradient_is_clipped(self, tiny_model, rows):
        optimizer = torch.optim.SGD(tiny_model.parameters(), lr=0.0)
        train_step(tiny_model, collate(rows, 0), optimizer, max_grad_norm=1e-3)
        norm = torch.stack([p.grad.norm() for p in tiny_model.parameters()]).norm()
        assert norm.item() == pytest.approx(1e-3, rel=1e-3)


class TestLoop:
    def loop(self, model, rows, rates, **options):
        batches = [collate(rows[i : i + 2], 0) for i in range(0, 2 * len(rates), 2)]
        optimizer = torch.optim.SGD(model.parameters(), lr=99.0)
        return train_loop(model, batches, optimizer, rates, **options), batches

    def test_is_a_step_on_every_batch_in_order_each_at_its_own_rate(self, tiny_model, rows):
        other = copy.deepcopy(tiny_model)
        rates = [0.1, 0.3, 0.2]
        losses, batches = self.loop(tiny_model, rows, rates)
        expected = [
            train_step(other, batch, torch.optim.SGD(other.parameters(), lr=rate))
            for batch, rate in zip(batches, rates, strict=True)
        ]
        assert losses == expected
        assert same(weights(tiny_model), weights(other))

    def test_trains_on_in_train_mode_whatever_on_step_did(self, tiny_model, rows):
        modes, told = [], []
        model_loss(tiny_model, collate(rows[:2], 0))  # the first loss of a model makes a trial call
        tiny_model.model.layers[0].register_forward_pre_hook(
            lambda module, found: modes.append(module.training)
        )

        def on_step(done, loss):
            told.append((done, loss))
            tiny_model.eval()

        losses, _ = self.loop(tiny_model, rows, [0.1, 0.1], on_step=on_step)
        assert modes == [True, True]
        assert told == list(enumerate(losses, 1))
        assert not tiny_model.training

    def test_rates_and_batches_must_be_as_many(self, tiny_model, rows):
        optimizer = torch.optim.SGD(tiny_model.parameters(), lr=0.1)
        with pytest.raises(ValueError, match="longer"):
            train_loop(tiny_model, [collate(rows, 0)], optimizer, [0.1, 0.1])

    def test_bf16_computes_coarsely_and_keeps_the_weights_in_fp32(self, tiny_model, rows):
        other = copy.deepcopy(tiny_model)
        coarse, _ = self.loop(tiny_model, rows, [0.1] * 3, precision="bf16")
        fine, _ = self.loop(other, rows, [0.1] * 3)
        assert coarse != fine
        assert coarse == pytest.approx(fine, rel=1e-2)
        assert {p.dtype for p in tiny_model.parameters()} == {torch.float32}


class TestRun:
    def test_trains_what_requires_a_gradient_and_nothing_else(self, tiny_model, rows):
        model = with_lora(tiny_model)
        before = weights(model)
        sft_train(model, rows, CONFIG, progress=False)
        after = weights(model)
        trained = {n for n, p in model.named_parameters() if p.requires_grad}
        assert trained == {n for n in after if not torch.equal(after[n], before[n])}
        assert len(trained) == len(lora_parameters(model))

    def test_the_history_has_one_loss_per_step_and_counts_trained_tokens(self, tiny_model, rows):
        history = sft_train(tiny_model, rows, CONFIG, progress=False)
        assert len(history.losses) == STEPS
        assert history.losses[-1] < history.losses[0]
        assert history.tokens == 2 * sum(row.trained for row in rows)
        assert history.finished
        assert history.seconds > 0

    def test_is_the_same_run_twice(self, tiny_model, rows):
        models = [with_lora(tiny_model, dropout=0.5) for _ in range(2)]
        histories = []
        for number, model in enumerate(models):
            torch.manual_seed(number)  # whatever was drawn before
            histories.append(sft_train(model, rows, CONFIG, progress=False))
        assert histories[0].losses == histories[1].losses
        assert same(*map(weights, models))

    def test_another_seed_is_another_order(self, tiny_model, rows):
        found = []
        for seed in (0, 1):
            config = TrainConfig(batch_size=3, max_steps=2, seed=seed)
            found.append(sft_train(with_lora(tiny_model), rows, config, progress=False).losses)
        assert found[0] != found[1]

    def test_what_pads_does_not_matter(self, tiny_model, rows):
        models = [with_lora(tiny_model) for _ in range(2)]
        for model, pad_id in zip(models, (0, 77), strict=True):
            sft_train(model, rows, CONFIG, pad_id=pad_id, progress=False)
        assert same(*map(weights, models))

    def test_stops_at_max_steps_with_the_schedule_planned_for_them(
        self, tiny_model, rows, monkeypatch
    ):
        asked = []
        monkeypatch.setattr(
            TrainConfig, "learning_rate_at", lambda self, *found: asked.append(found) or 0.1
        )
        history = sft_train(tiny_model, rows, TrainConfig(max_steps=2), progress=False)
        assert len(history.losses) == 2
        assert asked == [(0, 2), (1, 2)]

    def test_calls_on_step_before_the_first_step_and_after_each(self, tiny_model, rows):
        seen = []
        history = sft_train(
            tiny_model, rows, CONFIG, on_step=lambda *found: seen.append(found), progress=False
        )
        assert [steps for steps, _ in seen] == list(range(STEPS + 1))
        assert math.isnan(seen[0][1])
        assert [loss for _, loss in seen[1:]] == history.losses

    def test_trains_in_train_mode_and_leaves_the_model_in_eval_mode(self, tiny_model, rows):
        modes = []
        model_loss(tiny_model, collate(rows[:2], 0))
        tiny_model.model.layers[0].register_forward_pre_hook(
            lambda module, found: modes.append(module.training)
        )
        settings = {"progress": False, "check": False}  # the check runs the model as well
        sft_train(tiny_model, rows, CONFIG, on_step=lambda *_: tiny_model.eval(), **settings)
        assert modes == [True] * STEPS
        assert not tiny_model.training

    def test_without_folder_nothing_is_written(self, tiny_model, rows, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        sft_train(tiny_model, rows, CONFIG, progress=False)
        assert list(tmp_path.iterdir()) == []


class TestRefusals:
    def test_a_frozen_model(self, tiny_model, rows):
        with pytest.raises(WorkbookError, match=r"no parameter requires a gradient.*inject LoRA"):
            sft_train(tiny_model.requires_grad_(False), rows)

    def test_no_rows(self, tiny_model):
        with pytest.raises(WorkbookError, match="no row to train on"):
            sft_train(tiny_model, [])

    def test_a_loss_that_is_not_finite_names_step_and_rate(self, tiny_model, rows):
        config = TrainConfig(learning_rate=1e30, warmup_ratio=0, batch_size=3)
        with pytest.raises(WorkbookError, match=r"^step \d+: the loss is nan; .* 1e\+30 is prob"):
            sft_train(tiny_model, rows, config, progress=False)
        assert not tiny_model.training


class TestResume:
    @pytest.mark.parametrize("stop", [0, 1, 2, 5])
    def test_a_stopped_run_ends_with_the_very_same_weights(self, tiny_model, rows, tmp_path, stop):
        straight, stopped = (with_lora(tiny_model, dropout=0.5) for _ in range(2))
        expected = sft_train(straight, rows, CONFIG, progress=False)

        first = sft_train(
            stopped, rows, CONFIG, folder=tmp_path, on_step=interrupt_after(stop), progress=False
        )
        assert not first.finished
        assert len(first.losses) == stop
        assert not stopped.training

        fresh = with_lora(tiny_model, dropout=0.5)  # another process: nothing is left in memory
        torch.manual_seed(123)
        second = sft_train(fresh, rows, CONFIG, folder=tmp_path, progress=False)
        assert second.finished
        assert second.losses == expected.losses
        assert second.tokens == expected.tokens
        assert same(weights(fresh), weights(straight))

    def test_a_killed_run_goes_on_from_its_last_checkpoint(self, tiny_model, rows, tmp_path):
        def die(done, loss):
            if done == 3:  # one step after the checkpoint of step 2
                raise RuntimeError("killed")

        straight = with_lora(tiny_model)
        sft_train(straight, rows, CONFIG, progress=False)
        with pytest.raises(RuntimeError):
            sft_train(
                with_lora(tiny_model), rows, CONFIG, folder=tmp_path, on_step=die, progress=False
            )
        seen = []
        fresh = with_lora(tiny_model)
        sft_train(
            fresh,
            rows,
            CONFIG,
            folder=tmp_path,
            on_step=lambda done, loss: seen.append(done),
            progress=False,
        )
        assert seen == [3, 4, 5, 6]
        assert same(weights(fresh), weights(straight))

    def test_an_interrupt_in_mid_step_lets_the_step_end(
        self, tiny_model, rows, tmp_path, interruptible
    ):
        straight, stopped = (with_lora(tiny_model) for _ in range(2))
        sft_train(straight, rows, CONFIG, progress=False)
        calls = []

        def press_stop(*_):
            calls.append(1)
            if len(calls) == 2:
                os.kill(os.getpid(), signal.SIGINT)

        model_loss(stopped, collate(rows[:2], 0))
        stopped.model.layers[1].register_forward_hook(press_stop)
        before = signal.getsignal(signal.SIGINT)
        settings = {"progress": False, "check": False}  # the check runs the model as well
        first = sft_train(stopped, rows, CONFIG, folder=tmp_path, **settings)
        assert len(first.losses) == 2
        assert not first.finished
        assert signal.getsignal(signal.SIGINT) is before
        fresh = with_lora(tiny_model)
        sft_train(fresh, rows, CONFIG, folder=tmp_path, progress=False)
        assert same(weights(fresh), weights(straight))

    def test_a_pause_changes_nothing_whatever_is_done_in_between(self, tiny_model, rows, tmp_path):
        straight, paused = (with_lora(tiny_model, dropout=0.5) for _ in range(2))
        expected = sft_train(straight, rows, CONFIG, progress=False)
        for until in (2, 3):
            history = sft_train(
                paused, rows, CONFIG, folder=tmp_path, progress=False, stop_after_steps=until
            )
            assert len(history.losses) == until
            assert not history.finished
            torch.rand(until)
            paused(torch.tensor([[1, 2, 3]]))
        history = sft_train(
            paused, rows, CONFIG, folder=tmp_path, progress=False, stop_after_steps=99
        )
        assert history.finished
        assert history.losses == expected.losses
        assert same(weights(paused), weights(straight))

    def test_trains_in_a_thread_too(self, tiny_model, rows):
        found = []
        thread = threading.Thread(
            target=lambda: found.append(sft_train(tiny_model, rows, CONFIG, progress=False))
        )
        thread.start()
        thread.join()
        assert found[0].finished

    def test_a_finished_run_is_not_trained_again(self, tiny_model, rows, tmp_path):
        model = with_lora(tiny_model)
        first = sft_train(model, rows, CONFIG, folder=tmp_path, progress=False)
        fresh, seen = with_lora(tiny_model), []
        again = sft_train(
            fresh, rows, CONFIG, folder=tmp_path, on_step=lambda *f: seen.append(f), progress=False
        )
        assert seen == []
        assert again == first
        assert same(weights(fresh), weights(model))

    @pytest.mark.parametrize("what", ["settings", "rows", "parameters", "shapes"])
    def test_a_checkpoint_of_another_run_is_refused(self, tiny_model, rows, tmp_path, what):
        sft_train(with_lora(tiny_model), rows, CONFIG, folder=tmp_path, progress=False)
        model, config, examples = with_lora(tiny_model), CONFIG, rows
        if what == "settings":
            config = TrainConfig(learning_rate=2e-2, num_train_epochs=2, batch_size=3, save_steps=2)
        if what == "rows":
            examples = rows[::-1]
        if what == "parameters":
            model = tiny_model
        if what == "shapes":
            model = inject_lora(copy.deepcopy(tiny_model), "all-linear", r=1, lora_alpha=4, seed=0)
        before = weights(model)
        with pytest.raises(WorkbookError, match=r"belongs to another run .*choose another folder"):
            sft_train(model, examples, config, folder=tmp_path, progress=False)
        assert same(weights(model), before)

    def test_a_damaged_checkpoint_is_told(self, tiny_model, rows, tmp_path):
        sft_train(tiny_model, rows, CONFIG, folder=tmp_path, progress=False)
        checkpoint = tmp_path / "checkpoint.pt"
        checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
        with pytest.raises(WorkbookError, match=r"checkpoint\.pt is damaged .*remove it"):
            sft_train(tiny_model, rows, CONFIG, folder=tmp_path, progress=False)


class TestFullDisk:
    def test_keeps_the_checkpoint_before_and_leaves_no_half_one(self, tiny_model, rows, tmp_path):
        sft_train(
            with_lora(tiny_model),
            rows,
            CONFIG,
            folder=tmp_path,
            on_step=interrupt_after(2),
            progress=False,
        )
        whole = (tmp_path / "checkpoint.pt").read_bytes()
        resource = pytest.importorskip("resource", reason="the system limits no file's size")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))  # no file over 2,000 bytes
        try:
            with pytest.raises(WorkbookError) as told:
                sft_train(with_lora(tiny_model), rows, CONFIG, folder=tmp_path, progress=False)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "the checkpoint after 4 steps cannot be written" in str(told.value)
        assert "the checkpoint before it is still there" in str(told.value)
        assert "free some space or choose another folder" in str(told.value)
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
        assert (tmp_path / "checkpoint.pt").read_bytes() == whole

    def test_is_told_in_one_sentence_when_there_is_no_checkpoint_yet(
        self, tiny_model, rows, tmp_path, monkeypatch
    ):
        def full(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(torch, "save", full)
        with pytest.raises(WorkbookError, match=r"after 2 steps cannot be .*No space left") as told:
            sft_train(tiny_model, rows, CONFIG, folder=tmp_path, progress=False)
        assert "still there" not in str(told.value)

    def test_a_folder_that_cannot_be_made_is_told(self, tiny_model, rows, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(WorkbookError, match="cannot be written to"):
            sft_train(tiny_model, rows, CONFIG, folder=tmp_path / "file", progress=False)
