"""Callbacks in the real training tools; what is not installed is skipped. `make test-integrations` installs them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.integrations.recording import Recording

ROWS = 200


def data() -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    features = random.normal(size=(ROWS, 4)).astype("float32")
    return features, (features[:, 0] > 0).astype("int64")


def test_sklearn_cross_validate_gives_a_cross_validated_promise() -> None:
    pytest.importorskip("sklearn")
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_validate

    from actors.integrations.sklearn import VisuTility

    system, (features, truth) = Recording(), data()
    found = cross_validate(LogisticRegression(), features, truth, scoring=["accuracy", "recall"], cv=4)
    VisuTility("fraud", "v8", n=ROWS, system=system).log(found)
    assert len(system.column("val_accuracy")) == 4
    assert system.promises[0]["source"] == "cross_validation"
    assert system.promises[0]["metrics"]["accuracy"] == pytest.approx(np.mean(found["test_accuracy"]))


def test_xgboost_logs_each_round_and_promises_of_its_hold_out() -> None:
    xgboost = pytest.importorskip("xgboost")
    from actors.integrations.xgboost import VisuTility

    system, (features, truth) = Recording(), data()
    train, valid = xgboost.DMatrix(features[:150], truth[:150]), xgboost.DMatrix(features[150:], truth[150:])
    params = {"objective": "binary:logistic", "eval_metric": ["logloss", "error"]}
    evaluated: dict[str, Any] = {}
    xgboost.train(
        params,
        train,
        5,
        evals=[(train, "train"), (valid, "valid")],
        evals_result=evaluated,
        verbose_eval=False,
        callbacks=[VisuTility("fraud", "v8", n=50, system=system)],
    )
    assert system.column("val_logloss") == evaluated["valid"]["logloss"]
    assert system.column("train_error") == evaluated["train"]["error"]
    assert system.promises == [
        {
            "metrics": {"accuracy": pytest.approx(1 - evaluated["valid"]["error"][-1])},
            "n": 50,
            "version": "v8",
            "source": "hold_out",
        }
    ]


def test_xgboost_cv_gives_a_cross_validated_promise() -> None:
    xgboost = pytest.importorskip("xgboost")
    from actors.integrations.xgboost import VisuTility

    system, (features, truth) = Recording(), data()
    found = xgboost.cv(
        {"objective": "binary:logistic"},
        xgboost.DMatrix(features, truth),
        5,
        nfold=4,
        metrics="error",
        as_pandas=False,
        callbacks=[VisuTility("fraud", "v8", n=ROWS, system=system)],
    )
    assert system.column("val_error") == pytest.approx(found["test-error-mean"])
    assert system.promises[0]["source"] == "cross_validation"
    assert system.promises[0]["metrics"]["accuracy"] == pytest.approx(1 - found["test-error-mean"][-1])


@pytest.mark.parametrize("is_cv", [False, True])
def test_lightgbm_logs_each_round_and_promises_at_an_early_stop(is_cv: bool) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    from actors.integrations.lightgbm import VisuTility

    system, (features, truth) = Recording(), data()
    params = {"objective": "binary", "metric": "binary_error", "verbosity": -1}
    with VisuTility("fraud", "v8", n=50, system=system) as callback:
        stop = lightgbm.early_stopping(3, verbose=False)
        if is_cv:
            lightgbm.cv(params, lightgbm.Dataset(features, truth), 50, nfold=4, callbacks=[callback, stop])
        else:
            train = lightgbm.Dataset(features[:150], truth[:150])
            valid = lightgbm.Dataset(features[150:], truth[150:], reference=train)
            lightgbm.train(
                params, train, 50, valid_sets=[train, valid], valid_names=["training", "valid"], callbacks=[callback, stop]
            )
    errors = system.column("val_binary_error")
    assert 3 < len(errors) < 50
    assert system.promises[0]["metrics"]["accuracy"] == pytest.approx(1 - errors[-1])
    assert system.promises[0]["source"] == ("cross_validation" if is_cv else "hold_out")
    assert bool(system.column("train_binary_error")) is not is_cv


def test_keras_logs_each_epoch_and_promises_of_its_validation_rows() -> None:
    pytest.importorskip("torch")
    os.environ["KERAS_BACKEND"] = "torch"
    keras = pytest.importorskip("keras")
    from actors.integrations.keras import VisuTility

    system, (features, truth) = Recording(), data()
    model = keras.Sequential([keras.layers.Dense(1, activation="sigmoid")])
    model.compile(loss="binary_crossentropy", metrics=["accuracy"])
    callback = VisuTility("fraud", "v8", n=50, system=system)
    history = model.fit(features, truth, validation_split=0.25, epochs=3, verbose=0, callbacks=[callback]).history
    assert system.column("val_accuracy") == pytest.approx([float(each) for each in history["val_accuracy"]])
    assert system.column("train_loss") == pytest.approx([float(each) for each in history["loss"]])
    assert system.promises[0]["metrics"] == {"accuracy": pytest.approx(float(history["val_accuracy"][-1]))}


@pytest.mark.filterwarnings("ignore")
def test_lightning_counts_the_validation_rows_and_leaves_its_sanity_check_out(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    lightning = pytest.importorskip("lightning.pytorch")
    from actors.integrations.lightning import VisuTility

    class Classifier(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 2)

        def training_step(self, batch: Any, _: int) -> Any:
            loss = torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch: Any, _: int) -> None:
            self.log("val_acc", (self.layer(batch[0]).argmax(1) == batch[1]).float().mean())

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    system, (features, truth) = Recording(), data()
    rows = [torch.utils.data.TensorDataset(torch.tensor(features[part]), torch.tensor(truth[part])) for part in SPLIT]
    loaders = [torch.utils.data.DataLoader(each, batch_size=50) for each in rows]
    trainer = lightning.Trainer(
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        default_root_dir=tmp_path,
        callbacks=[VisuTility("fraud", "v8", system=system)],
    )
    trainer.fit(Classifier(), *loaders)
    assert len(system.column("val_acc")) == len(system.column("train_loss")) == 3
    assert {n for _, values, n in system.events if "val_acc" in values} == {50.0}
    last = system.column("val_acc")[-1]
    assert system.promises == [{"metrics": {"accuracy": last}, "n": 50.0, "version": "v8", "source": "hold_out"}]


SPLIT = (slice(0, 150), slice(150, None))


@pytest.mark.filterwarnings("ignore")
def test_transformers_logs_its_evaluations_and_counts_their_rows(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from actors.integrations.transformers import VisuTility

    class Classifier(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 2)

        def forward(self, x: Any, labels: Any) -> dict[str, Any]:
            logits = self.layer(x)
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    system, (features, truth) = Recording(), data()
    rows = [{"x": x, "labels": int(y)} for x, y in zip(features, truth, strict=True)]
    trainer = transformers.Trainer(
        Classifier(),
        transformers.TrainingArguments(
            output_dir=str(tmp_path),
            num_train_epochs=2,
            eval_strategy="epoch",
            logging_strategy="epoch",
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=rows[:150],
        eval_dataset=rows[150:],
        compute_metrics=lambda found: {"accuracy": float((found.predictions.argmax(1) == found.label_ids).mean())},
        callbacks=[VisuTility("fraud", "v8", system=system)],
    )
    trainer.train()
    accuracies = system.column("val_accuracy")
    assert len(accuracies) == len(system.column("train_loss")) == 2
    assert "val_runtime" not in system.events[-1][1]
    assert system.promises == [
        {"metrics": {"accuracy": accuracies[-1]}, "n": 50.0, "version": "v8", "source": "hold_out"},
    ]
