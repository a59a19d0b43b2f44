"""A training record, to be changed with `dataclasses.replace`."""

from __future__ import annotations

from slsa_for_models.evidence import training_record as record

DATA = record.Input("data.csv", "b" * 64, 17, "https://example.test/data.csv")
ENVIRONMENT = record.Environment(
    python="3.11.2",
    packages={"torch": "2.13.0"},
    platform="Linux x86_64",
    cpus=2,
    cpu_features=("avx2", "fma"),
    accelerators=(),
    requirements_sha256=None,
    source_sha256="c" * 64,
    network="none",
    confinement="user namespace",
)
RECORD = record.TrainingRecord(
    model=record.Model("model.pth", 7, "a" * 64),
    dataset=record.Dataset(DATA.sha256, (DATA,)),
    command=("python", "train.py", "--rate=0.1"),
    parameters={"epochs": 2, "seed": 7, "shuffle": True, "train.n_est": 50, "C": 1.5},
    metrics={"test_accuracy": 0.78, "roc_auc": 0.93, "epoch.1.loss": 2.25},
    environment=ENVIRONMENT,
    started="2026-11-22T20:00:00Z",
    finished="2026-11-22T20:10:00Z",
)
