"""Random matrix products: what is drawn, what counts as right, what the figures say."""

import json

import numpy as np
import pytest

from benchmarks import contractions, driver, products
from benchmarks.__main__ import main
from benchmarks.contractions import Timed
from benchmarks.products import Product

ONE = [Product(2, 3, 4, False, True)]
TWO = [*ONE, Product(1, 5, 1, True, True)]


def test_shapes_are_the_same_each_time_and_of_all_kinds():
    drawn = products.draw(200, seed=0)
    assert drawn == products.draw(200, seed=0)
    assert drawn != products.draw(200, seed=1)
    sizes = np.array([p[:3] for p in drawn])
    assert sizes.min() >= 1
    assert sizes.max() <= products.LARGEST
    assert ((sizes < 8).mean() > 0.2) and ((sizes > 256).mean() > 0.2)
    kinds = [(p.left_transposed, p.right_transposed) for p in drawn]
    assert {kinds.count(kind) for kind in kinds} == {50}
    assert len(set(kinds)) == 4


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("right", [False, True])
def test_the_error_of_a_product(dtype, left, right):
    product = Product(5, 40, 3, left, right)
    a, b = product.operands(dtype, seed=0)
    assert (a.dtype, b.dtype) == (dtype, dtype)
    result = product.of(a, b)
    assert result.shape == (5, 3)
    assert product.error(result, a, b) < 1.0
    wrong = result.copy()
    wrong[4, 2] *= 1.0 + 200 * np.finfo(dtype).eps
    wrong[4, 2] += 200 * np.finfo(dtype).eps * 40
    assert product.error(wrong, a, b) > contractions.LIMIT
    wrong[0, 0] = np.nan
    assert product.error(wrong, a, b) == np.inf
    assert product.error(result.T, a, b) == np.inf
    assert product.error(result.astype("float16"), a, b) == np.inf


def test_products_are_read_as_they_are_printed():
    for product in products.draw(20, seed=3):
        assert products.parse(str(product)) == product
    for text in ("2x3NT", "2x3x4", "0x3x4NN", "2x3x4AB", "2x3x4NNN", "-1x2x3NN"):
        with pytest.raises(ValueError, match="is no product"):
            products.parse(text)


def timed(own, **others):
    return Timed(Product(2, 3, 4, False, True), "call", {"diffc": own} | others)


def test_the_best_peer_is_the_one_with_the_least_ratio():
    found = timed([1.0, 2.0, 1.0], numpy=[2.0, 4.0, 2.0], jax=[1.5, 3.5, 0.5])
    assert found.ratios() == {"numpy": 2.0, "jax": 1.5}
    assert found.best() == (1.5, "jax")
    assert found.fastest() == 0.5
    assert found.rate() == 48 / 1e9


def test_the_distribution_and_the_worst():
    slow = timed([2.0], numpy=[1.0])
    assert contractions.distribution([0.5, 1.0, 2.0]) == [
        *("0.50", "0.75", "1.00", "1.50", "2.00", "1.00"),
        "67%",
    ]
    text = contractions.text([slow, timed([1.0], numpy=[4.0]), timed([1.0])], ["numpy: a problem"])
    assert "call, medians" in text
    assert "loop" not in text
    assert text.index("0.50") < text.index("4.00")
    assert "2x3x4NT" in text
    assert text.endswith("numpy: a problem")


def test_a_run_of_the_command(tmp_path, capsys):
    figures, page = tmp_path / "new" / "figures.json", tmp_path / "new" / "page.md"
    words = ["contractions", "--count", "3", "--rounds", "1", "--chunk-ms", "0.1"]
    words += ["--peers", "diffc", "numpy", "--dtype", "float64"]
    main([*words, "--json", str(figures), "--markdown", str(page)])
    record = json.loads(figures.read_text())
    assert (record["dtype"], record["problems"]) == ("float64", [])
    assert [r["form"] for r in record["results"]] == ["call", "loop"] * 3
    assert all(r["seconds"].keys() == {"diffc", "numpy"} for r in record["results"])
    assert "call, medians" in page.read_text()
    assert "worst of 3 in a loop" in capsys.readouterr().out


def test_a_peer_that_is_wrong_is_not_timed(monkeypatch):
    monkeypatch.setattr(contractions, "LIMIT", -1.0)
    settings = driver.Settings(rounds=1, chunk_seconds=1e-4)
    found, problems = contractions.measure(ONE, "float32", settings, str, peers=["numpy"])
    assert len(problems) == 1
    assert "disagrees" in problems[0]
    assert [t.seconds for t in found] == [{}, {}]


def test_a_peer_that_fails_is_reported():
    settings = driver.Settings(rounds=1, chunk_seconds=1e-4)
    found, problems = contractions.measure(
        TWO, "float32", settings, str, peers=["nothing", "numpy"]
    )
    assert len(problems) == 1
    assert problems[0].startswith("nothing: ")
    assert "KeyError: 'nothing'" in problems[0]
    assert [list(t.seconds) for t in found] == [["numpy"]] * 4
