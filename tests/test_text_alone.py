"""What the text alone tells: nothing where labels have nothing to do with it, all where they follow from it."""

import numpy as np
from small import BUNDLE

from scanner.evidence.metrics import auroc
from scanner.evidence.text_alone import features, ridge_probe, text_alone
from scanner.model import Model


def test_features_are_tokens_and_the_mean_embedding():
    denoiser = Model(BUNDLE, "cpu", batch_size=4).denoiser
    found = features(denoiser, ["a dog", "a dog on a beach at night"])
    assert found[:, 0].tolist() == [
        len(denoiser.read([text])[0].spans) for text in ("a dog", "a dog on a beach at night")
    ]
    assert found[0, 0] < found[1, 0]
    hidden = denoiser.encode(["a dog"]).arrays["encoder_hidden_states"]
    np.testing.assert_allclose(found[0, 1:], hidden[0].mean(0), rtol=1e-5, atol=1e-6)


def test_a_probe_finds_what_is_there_and_nothing_else():
    drawn = np.random.default_rng(0)
    embedding, label = drawn.standard_normal((400, 8)), drawn.random(400) < 0.5
    alone = np.arange(400)
    assert 0.4 < auroc(ridge_probe(embedding, label, alone), label) < 0.6
    told = embedding + label[:, None] * np.eye(8)[3] * 3
    assert auroc(ridge_probe(told, label, alone), label) > 0.95


def test_near_duplicates_are_on_one_side_of_the_probe():
    drawn = np.random.default_rng(1)
    group = np.repeat(np.arange(40), 10)
    label = (drawn.random(40) < 0.5)[group]
    embedding = drawn.standard_normal((40, 60))[group]  # ten copies of each, which say nothing about another group
    assert auroc(ridge_probe(embedding, label, np.arange(400)), label) > 0.95
    assert auroc(ridge_probe(embedding, label, group), label) < 0.7


def test_lengths_are_those_of_the_embedding():
    drawn = np.random.default_rng(2)
    found = np.concatenate([np.arange(50.0)[:, None], drawn.standard_normal((50, 4)) * [1, 1, 1, 10]], axis=1)
    told = text_alone(found, np.arange(50) < 25, np.arange(50))
    assert told["caption length in tokens"].tolist() == list(range(50))
    np.testing.assert_allclose(told["embedding length"], np.linalg.norm(found[:, 1:], axis=1))
    wide, narrow = abs(found[:, 4]).argmax(), abs(found[:, 1]).argmax()
    assert told["embedding length"][wide] > 2 * told["embedding length"][narrow]
    whitened = told["embedding length, whitened"]  # the wide direction counts for less
    assert whitened[wide] / whitened[narrow] < told["embedding length"][wide] / told["embedding length"][narrow]
