"""What commands share."""

import pytest
import torch
from torch import nn

from lightssl.pipeline.building import device_for


def test_a_gpu_is_used_where_there_is_one_but_for_other_runtimes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_for(nn.Linear(2, 2)) == device_for(nn.Identity()) == "cpu" or torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_for(nn.Linear(2, 2)) == device_for() == "cuda"
    assert device_for(nn.Identity()) == "cpu"  # as a network in ONNX Runtime, it has no parameters of torch's
