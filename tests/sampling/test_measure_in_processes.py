"""Measurements in forked processes and DataLoader workers: equal votes, unchanged images."""

import multiprocessing

import numpy as np
import pytest
import torch

import wobbliness

SETTINGS = {"sigma": 0.3, "draws": 20}


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(144, 64),
        torch.nn.Linear(64, 5),
    ).eval()


def counts(module, images, **options):
    return wobbliness.measure(
        wobbliness.open_classifier(module, **options), images, **SETTINGS
    ).counts


@pytest.fixture(scope="module")
def module():
    return network()


@pytest.fixture(scope="module")
def expected(module, images):
    return counts(module, images[:4])


def send_counts(connection, module, images):
    connection.send(counts(module, images))
    connection.close()


@pytest.mark.filterwarnings("ignore:This process")
def test_a_process_forked_from_one_that_has_measured(module, images, expected):
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=send_counts, args=(theirs, module, images[:4]))
    child.start()
    try:
        assert ours.poll(60), "the forked process hangs"
        assert np.array_equal(ours.recv(), expected)
    finally:
        child.kill()
        child.join()


class MeasuredImages(torch.utils.data.Dataset):
    """Each item is the counts of one image, measured where it is asked for."""

    def __init__(self, module, images):
        self.module, self.images = module, images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return counts(self.module, self.images[index : index + 1])[0].copy()


@pytest.mark.filterwarnings("ignore:This process")
def test_a_worker_of_a_data_loader(module, images, expected):
    loader = torch.utils.data.DataLoader(
        MeasuredImages(module, images[:4]), batch_size=2, num_workers=1, timeout=60
    )
    assert np.array_equal(np.concatenate([batch.numpy() for batch in loader]), expected)


class InPlace(torch.nn.Module):
    """Changes the batch it is given."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, batch):
        batch.sub_(0.5).mul_(2)
        return self.body(torch.nn.functional.relu_(batch))


class Copying(InPlace):
    """The same on a copy."""

    def forward(self, batch):
        return super().forward(batch.clone())


@pytest.mark.parametrize("compiled", [True, False])
def test_modules_that_change_their_batch_in_place(images, compiled):
    body, measured = network(), images[:4].copy()
    found = counts(InPlace(body).eval(), measured, compiled=compiled)
    assert np.array_equal(measured, images[:4])
    assert np.array_equal(found, counts(Copying(body).eval(), measured, compiled=compiled))
    assert not np.array_equal(found, counts(body, measured, compiled=compiled)), (
        "control: the change matters"
    )


def test_a_function_that_changes_its_batch_in_place(images):
    measured = images[:4].copy()

    def changing(batch):
        batch *= 0
        return np.zeros(len(batch), np.int64)

    wobbliness.measure(changing, measured, num_classes=2, **SETTINGS)
    assert np.array_equal(measured, images[:4])
