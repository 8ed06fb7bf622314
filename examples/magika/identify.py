"""What kind of file each of some files is, told by what is in them.

python examples/magika/identify.py http://127.0.0.1:8080 FILE FILE ...
"""

import sys
from pathlib import Path

import salver
from salver.protocol.errors import SalverError


def main(url: str, *files: str) -> int:
    with salver.Client(url) as client:
        try:
            answer = client.predict_all("magika", [Path(file).read_bytes() for file in files])
        except SalverError as error:
            print(f"{error.code}: {error}", file=sys.stderr)
            return 1
    for label, score, file in zip(answer["label"], answer["score"], files, strict=True):
        print(f"{label.decode():12} {score:.3f}  {file}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
