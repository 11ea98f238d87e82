"""The teacher: what agreeing and disagreeing with it costs, and who learns from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import ALONE, run_tiny, tiny_network, tiny_settings

from deeplab.errors import InputError
from deeplab.labels import LabelSet
from deeplab.models import DeepLab
from deeplab.photo.images import InputSpec
from deeplab.training.losses import resize_label
from deeplab.training.settings import TeacherSettings
from deeplab.training.teacher import Teacher, open_teacher
from deeplab.weights.release import save

LABELS = LabelSet(("ground", "grey", "white"))
SETTINGS = TeacherSettings(path="any", weight=0.5, temperature=3.0)


@pytest.fixture
def network() -> DeepLab:
    return tiny_network(tiny_settings()).eval()


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 33, 41), generator=torch.Generator().manual_seed(1)).byte()


def test_agreeing_costs_nothing(network: DeepLab, image: torch.Tensor) -> None:
    logits = network(image)
    label = torch.zeros(2, 33, 41, dtype=torch.long)
    cost = Teacher(network, SETTINGS)(logits, image, label, torch.tensor(label.numel()))
    assert cost.item() == pytest.approx(0, abs=1e-6)


def test_the_cost_is_the_divergence_where_the_teacher_is_right(
    network: DeepLab, image: torch.Tensor
) -> None:
    opinion = network(image)
    height, width = opinion.shape[-2:]
    logits = torch.randn(opinion.shape, generator=torch.Generator().manual_seed(2))
    label = torch.randint(0, 3, (2, 33, 41), generator=torch.Generator().manual_seed(3))
    kept = torch.tensor(1000)

    def softened(x: torch.Tensor) -> np.ndarray:
        powers = np.exp(x.detach().double().numpy() / SETTINGS.temperature)
        return powers / powers.sum(1, keepdims=True)

    p, q = softened(opinion), softened(logits)
    right = (opinion.argmax(1) == resize_label(label, height, width)).numpy()
    assert 0 < right.sum() < right.size
    divergence = ((p * np.log(p / q)).sum(1) * right).sum()
    expected = 0.5 * 3.0**2 * divergence * (33 * 41) / (height * width) / 1000
    cost = Teacher(network, SETTINGS)(logits, image, label, kept)
    assert cost.item() == pytest.approx(expected, rel=1e-5)


def test_parts_of_a_step_add_up(network: DeepLab, image: torch.Tensor) -> None:
    teacher, label = Teacher(network, SETTINGS), torch.ones(2, 33, 41, dtype=torch.long)
    logits, kept = torch.zeros_like(network(image)), torch.tensor(label.numel())
    whole = teacher(logits, image, label, kept)
    parts = [teacher(logits[i], image[i], label[i], kept) for i in (slice(1), slice(1, 2))]
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-6)


def test_a_teacher_that_is_wrong_everywhere_is_not_heard(
    network: DeepLab, image: torch.Tensor
) -> None:
    logits = torch.zeros_like(network(image))
    ignored = torch.full((2, 33, 41), 255)
    assert Teacher(network, SETTINGS)(logits, image, ignored, torch.tensor(1)).item() == 0


def test_a_teacher_that_is_heard_everywhere_counts_where_there_is_a_label(
    network: DeepLab, image: torch.Tensor
) -> None:
    settings = TeacherSettings(path="any", weight=0.5, temperature=3.0, everywhere=True)
    opinion = network(image)
    wrong = (opinion.argmax(1, keepdim=True) + 1) % 3
    label = torch.nn.functional.interpolate(wrong.float(), size=image.shape[2:])[:, 0].long()
    logits = torch.randn(opinion.shape, generator=torch.Generator().manual_seed(2))
    kept = torch.tensor(label.numel())
    assert Teacher(network, SETTINGS)(logits, image, label, kept).item() == 0
    assert Teacher(network, settings)(logits, image, label, kept).item() > 0.01
    ignored = torch.full_like(label, 255)
    assert Teacher(network, settings)(logits, image, ignored, kept).item() == 0


def test_only_the_student_learns(tmp_path: Path) -> None:
    settings = tiny_settings()
    teacher = Teacher(tiny_network(settings), SETTINGS)
    before = {name: value.clone() for name, value in teacher.network.state_dict().items()}
    alone, _ = run_tiny(tmp_path / "alone", settings)
    taught, _ = run_tiny(tmp_path / "taught", settings, ALONE, teacher=teacher)
    after = teacher.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not teacher.network.training
    pairs = zip(alone.state_dict().values(), taught.state_dict().values(), strict=True)
    assert any(not torch.equal(one, other) for one, other in pairs)


def test_a_teacher_pulls_the_student_towards_it(tmp_path: Path, image: torch.Tensor) -> None:
    settings = tiny_settings(run={"steps": 12, "batch_norm": "frozen"}, schedule={"base": 0.02})
    torch.manual_seed(5)
    master, _ = run_tiny(tmp_path / "master", settings)
    strong = TeacherSettings(path="any", weight=5.0, temperature=2.0)
    alone, _ = run_tiny(tmp_path / "alone", settings)
    master.classifier.bias.data += torch.tensor([0.0, -2.0, 1.0])  # type: ignore[union-attr]
    taught, _ = run_tiny(tmp_path / "taught", settings, teacher=Teacher(master, strong))

    def distance(network: DeepLab) -> float:
        opinions = [net.eval()(image).softmax(1) for net in (network, master)]
        return (opinions[0] - opinions[1]).abs().mean().item()

    assert distance(taught) < distance(alone)


def test_a_teacher_of_other_classes_is_refused(tmp_path: Path, network: DeepLab) -> None:
    spec = InputSpec(height=33, width=33)
    save(tmp_path / "t", network.config, network.state_dict(), labels=LABELS, input_spec=spec)
    settings = TeacherSettings(path=str(tmp_path / "t.safetensors"))
    assert open_teacher(settings, LABELS).network.config == network.config
    with pytest.raises(InputError, match=r"teacher\.path: t\.safetensors knows 3 classes"):
        open_teacher(settings, LabelSet(("ground", "cat", "dog")))
