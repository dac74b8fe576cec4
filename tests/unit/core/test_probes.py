import numpy as np
import pytest
import torch

from models.core.probes import knn_accuracy, knn_predict, linear_probe, nearest, stratified_subset


def blobs(count, seed=0, spread=0.3):
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    return np.eye(3)[labels] + spread * generator.normal(size=(count, 3)), labels.astype(np.int64)


def test_separable_features_are_probed_without_errors():
    train, labels = blobs(300, spread=0.05)
    test, expected = blobs(90, seed=1, spread=0.05)
    assert linear_probe(train, labels, test, expected) == 1
    assert knn_accuracy(train, labels, test, expected, k=5) == 1


def test_noise_is_chance():
    train, labels = blobs(3000)
    test, expected = blobs(3000, seed=1)
    noise = np.random.default_rng(2)
    assert linear_probe(noise.normal(size=train.shape), labels, test, np.roll(expected, 1)) < 0.5


def test_the_probe_does_not_see_the_scale_of_a_feature():
    train, labels = blobs(300)
    test, expected = blobs(300, seed=1)
    scaled = np.array([1e-3, 1.0, 1e3])
    assert linear_probe(train * scaled, labels, test * scaled, expected) == linear_probe(train, labels, test, expected)
    constant = np.concatenate([train, np.ones((300, 1))], axis=1)
    assert linear_probe(constant, labels, np.concatenate([test, np.ones((300, 1))], axis=1), expected) > 0.9


def test_nearest_neighbours_by_hand():
    gallery = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9], [0.2, 0.8]])
    labels = np.array([0, 0, 1, 1, 1])
    assert knn_predict(gallery, labels, np.array([[5.0, 0.1], [0.1, 5.0]]), k=1).tolist() == [0, 1]
    assert knn_predict(gallery, labels, gallery, k=1, leave_one_out=True).tolist() == labels.tolist()
    # Two votes against two: the closer pair wins.
    assert knn_predict(gallery[:4], labels[:4], np.array([[1.0, 0.2]]), k=4).tolist() == [0]
    with pytest.raises(ValueError, match="k: 5 neighbours"):
        knn_predict(gallery, labels, gallery, k=5, leave_one_out=True)


def test_leave_one_out_over_blocks_agrees_with_the_whole():
    rows, labels = blobs(2500)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    expected = labels[similarity.argmax(1)]
    assert np.mean(knn_predict(rows, labels, rows, k=1, leave_one_out=True) == expected) > 0.999
    found = nearest(torch.from_numpy(rows), 1)[:, 0].numpy()
    assert np.mean(found == similarity.argmax(1)) > 0.999


def test_subsets_hold_a_share_of_every_class():
    labels = np.repeat([0, 1, 2], [200, 100, 3])
    chosen = stratified_subset(labels, 0.1, 0)
    assert np.bincount(labels[chosen]).tolist() == [20, 10, 1]
    assert stratified_subset(labels, 0.1, 0).tolist() == chosen.tolist()
    assert stratified_subset(labels, 0.1, 1).tolist() != chosen.tolist()
