"""Pages show what their code prints; reference pages say what the registries say; links lead on."""

import re

import pytest

from diffc.pipeline import STAGES
from docs.pages import BLOCK, DOCS, ROOT, pages, regenerated
from docs.registries import reference

PAGES = pages()
REFERENCE = [DOCS / "reference" / name for name in reference()]
HINT = "run `make docs` and read the diff"


def name_of(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=map(name_of, PAGES))
def test_outputs_are_what_the_code_prints(page):
    assert regenerated(page) == page.read_text(encoding="utf-8"), HINT


@pytest.mark.parametrize("page", REFERENCE, ids=map(name_of, REFERENCE))
def test_reference_is_what_the_registries_say(page):
    assert page.read_text(encoding="utf-8") == reference()[page.name], HINT


def test_no_other_reference_pages():
    assert sorted((DOCS / "reference").iterdir()) == sorted(REFERENCE)


@pytest.mark.parametrize("page", [*PAGES, *REFERENCE], ids=map(name_of, [*PAGES, *REFERENCE]))
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if "://" not in link:
            assert (page.parent / link).exists(), link


def test_every_page_can_be_reached():
    seen, stack = set(), [ROOT / "README.md"]
    while stack:
        page = stack.pop().resolve()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in link:
                stack.append(page.parent / link)
    assert [name_of(page) for page in [*PAGES, *REFERENCE] if page.resolve() not in seen] == []


def test_every_stage_has_its_page():
    assert all((DOCS / "internals" / f"{name}.md").exists() for name in STAGES)


def test_python_is_never_left_unrun():
    """A block that the runner would not see is a block that rots."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert len(BLOCK.findall(text)) == text.count("```python"), page


def test_a_wrong_output_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr("docs.pages.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("# p\n\n```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n\nend\n")
    assert regenerated(page) == page.read_text().replace("3", "2")
    page.write_text("```python\nx = 1\nprint(x)\n```\n\ntext\n\n```python\ny = x\n```\n")
    assert regenerated(page).count("```text\n1\n```\n") == 1
    page.write_text("```python\nprint('a')\n```\n\n```text differs\nb\n```\n")
    assert regenerated(page) == page.read_text()


def test_errors_name_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr("docs.pages.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("a\n\n```python\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as caught:
        regenerated(page)
    assert "page.md, in the block at line 3" in caught.value.__notes__[0]
    assert caught.traceback[-1].lineno + 1 == 4
