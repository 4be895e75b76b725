"""Writes the outputs that pages contain, and the reference pages. Run by ``make docs``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from docs.pages import DOCS, ROOT, pages, regenerated
from docs.registries import reference


def main() -> None:
    """Regenerates what has changed, and says so."""
    texts = {page: regenerated(page) for page in pages()}
    folder = DOCS / "reference"
    folder.mkdir(exist_ok=True)
    texts |= {folder / name: text for name, text in reference().items()}
    for path, text in texts.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
