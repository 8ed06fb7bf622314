"""Learn which words follow which, from this repository's licence or a text of yours, and make an artifact of it.

    python examples/generator/make.py words-model [TEXT]

writes `words-model/` with `follows.json` and the files of `model/`.
"""

import json
import re
import shutil
import sys
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).parent
LICENCE = HERE.parents[1] / "LICENSE"
ORDER = 2
"""So many words decide what the next may be."""


def main(folder: Path, text: Path = LICENCE) -> None:
    words = re.findall(r"\S+", text.read_text(encoding="utf-8"))
    follows = defaultdict(list)
    for at in range(len(words) - ORDER):
        follows[" ".join(words[at : at + ORDER])].append(words[at + ORDER])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "follows.json").write_text(json.dumps(follows), encoding="utf-8")
    for file in (HERE / "model").iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    print(f"{len(words)} words, {len(follows)} pairs of words")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
