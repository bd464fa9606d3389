"""From a configuration to the parts of a run."""

from routerbench.device import choose_device
from routerbench.parts.data import (
    Data,
    TestSet,
    described_sets,
    load_data,
    load_extra,
    load_test,
)
from routerbench.parts.model import build_model, checkpoint_activations, load_weights, put_moe_layers, start
from routerbench.parts.probes import FewShot, Probed, load_fewshot, load_linear_probe, probe_sets
from routerbench.parts.recipe import check_schedule, mix, optimizer_and_scheduler, task_loss, test_loss
from routerbench.parts.verify import verify

__all__ = [
    "Data",
    "FewShot",
    "Probed",
    "TestSet",
    "build_model",
    "check_schedule",
    "checkpoint_activations",
    "choose_device",
    "described_sets",
    "load_data",
    "load_extra",
    "load_fewshot",
    "load_linear_probe",
    "load_test",
    "load_weights",
    "mix",
    "optimizer_and_scheduler",
    "probe_sets",
    "put_moe_layers",
    "start",
    "task_loss",
    "test_loss",
    "verify",
]
