import json
from base64 import b64decode

import cv2
import numpy as np

from lightssl.evaluation.neighbours import neighbour_gallery


def picture(index: int, height: int = 8, width: int = 12) -> np.ndarray:
    return np.full((height, width, 3), (index % 251, index % 241, index % 239), dtype=np.uint8)


def decode(address: str) -> np.ndarray:
    kind, data = address.split(",")
    assert kind == "data:image/png;base64"
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(b64decode(data), np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def test_gallery_holds_the_right_images_and_labels(clusters):
    features = clusters(spread=0.05)
    gallery = neighbour_gallery(features, picture, lambda index: picture(index + 50), seed=0, queries=4, k=3)
    json.dumps(gallery)
    assert len(gallery["queries"]) == 4
    test_pictures = [picture(index + 50).tolist() for index in features.test_indices.tolist()]
    train_pictures = [picture(index).tolist() for index in features.train_indices.tolist()]
    for query in gallery["queries"]:
        assert decode(query["image"]).tolist() in test_pictures
        similarities = [neighbour["similarity"] for neighbour in query["neighbours"]]
        assert len(similarities) == 3
        assert similarities == sorted(similarities, reverse=True)
        for neighbour in query["neighbours"]:
            assert neighbour["label"] == query["label"]
            row = train_pictures.index(decode(neighbour["image"]).tolist())
            assert features.classes[features.train_labels[row]] == neighbour["label"]


def test_the_seed_draws_the_queries(clusters):
    features = clusters(spread=1)
    first, again, other = (neighbour_gallery(features, picture, picture, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first["queries"] != other["queries"]


def test_few_images_give_a_small_gallery(clusters):
    gallery = neighbour_gallery(clusters(spread=1, train=3, test=2), picture, picture)
    assert [len(query["neighbours"]) for query in gallery["queries"]] == [3, 3]


def test_large_images_are_shrunk(clusters):
    gallery = neighbour_gallery(clusters(spread=1), picture, lambda index: picture(index, 300, 100), queries=1)
    assert decode(gallery["queries"][0]["image"]).shape == (64, 21, 3)
