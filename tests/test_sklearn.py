import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from conftest import sentences
from headstart.sklearn import HeadstartClassifier


@parametrize_with_checks([HeadstartClassifier()])
def test_the_contract_of_scikit_learn(estimator, check):
    check(estimator)


def test_texts_in_a_pipeline_and_in_cross_validation():
    texts, labels = zip(*sentences(90), strict=True)
    model = make_pipeline(FunctionTransformer(lambda X: [x.lower() for x in X]), HeadstartClassifier(backbone="fake"))
    assert cross_val_score(model, list(texts), list(labels), cv=3).mean() > 0.9
    fitted = clone(model).fit(list(texts), list(labels))
    assert list(fitted.classes_) == ["bird", "fruit", "metal"]
    assert fitted.predict_proba(["apple plum"]).shape == (1, 3)
    assert fitted.predict(["apple plum"]).tolist() == ["fruit"]


def test_arrays_of_texts_are_texts():
    import numpy as np
    import pandas as pd

    texts, labels = zip(*sentences(30), strict=True)
    expected = HeadstartClassifier(backbone="fake").fit(list(texts), labels).predict(["iron zinc"])
    for kind in (np.array, pd.Series, lambda x: np.array(x, dtype=object), tuple):
        assert (
            HeadstartClassifier(backbone="fake").fit(kind(list(texts)), labels).predict(kind(["iron zinc"])) == expected
        )


def test_pictures_are_bytes():
    import io

    from PIL import Image

    def tile(shade, place):
        file = io.BytesIO()
        Image.new("RGB", (9, 9), tuple(shade if i == place else 20 for i in range(3))).save(file, "PNG")
        return file.getvalue()

    contents = [tile(150 + i, i % 2) for i in range(40)]
    model = HeadstartClassifier(backbone="colours")
    assert cross_val_score(model, contents, ["red", "green"] * 20, cv=3).mean() > 0.9
    assert model.fit(contents, ["red", "green"] * 20).predict([contents[0], tile(171, 1)]).tolist() == ["red", "green"]
