import pytest
import torch

from quant.self_distillation import SelfDistillation

LABELS = torch.tensor([0, 2, 1, 2])


def test_targets_mix_the_label_with_what_the_highest_width_said_an_epoch_ago():
    said = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    teacher = SelfDistillation(LABELS, 3, 0.8)
    teacher.begin_epoch(0, 4)
    indices = torch.tensor([3, 1])
    assert torch.equal(teacher.targets(indices), torch.eye(3)[[2, 2]])
    teacher.record(said)
    # What is said in an epoch teaches in the next one.
    assert torch.equal(teacher.targets(indices), torch.eye(3)[[2, 2]])
    teacher.begin_epoch(1, 4)
    share = 0.8 * 2 / 4
    expected = (1 - share) * torch.eye(3)[[2, 2]] + share * said.softmax(1)
    assert torch.allclose(teacher.targets(indices), expected)
    assert torch.equal(teacher.targets(torch.tensor([0])), torch.eye(3)[[0]])


def test_what_it_remembers_survives():
    teacher, other = SelfDistillation(LABELS, 3), SelfDistillation(LABELS, 3)
    teacher.targets(torch.tensor([0]))
    teacher.record(torch.ones(1, 3))
    other.load_state(teacher.state())
    for one in (teacher, other):
        one.begin_epoch(3, 4)
    assert torch.equal(teacher.targets(torch.arange(4)), other.targets(torch.arange(4)))
    assert float(other.targets(torch.tensor([0]))[0, 1]) == pytest.approx(0.7 / 3)


def test_wrong_strengths_are_refused():
    with pytest.raises(ValueError, match=r"the strength of self-distillation must be 0 .. 1, not 2"):
        SelfDistillation(LABELS, 3, 2)
