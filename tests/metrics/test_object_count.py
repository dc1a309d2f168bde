import pytest
import torch

from boqsa.metrics import ObjectCount, true_objects


def test_objects_are_distinct_labels_above_zero() -> None:
    true = torch.tensor([[[0, 3, 3, 700]], [[0, 0, -1, 0]], [[5, 5, 5, 5]]])
    assert true_objects(true).tolist() == [2, 0, 1]


def test_errors_by_hand() -> None:
    metric = ObjectCount()
    true = torch.tensor([[[0, 1, 2, 3]], [[0, 0, 0, 1]], [[0, 0, 0, 1]]])  # 3, 1, 1 objects
    metric.update(torch.tensor([3, 2]), true[:2])
    metric.update(torch.tensor([4]), true[2:])
    found = metric.compute()
    assert found.count_error.item() == pytest.approx(4 / 3)
    assert found.count_error_of_constant.item() == pytest.approx(2 / 3)  # saying 1 always


def test_nothing_seen_is_nan() -> None:
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert ObjectCount().compute().count_error.isnan()
