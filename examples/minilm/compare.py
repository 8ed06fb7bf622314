"""How close the meanings of texts are: the cosine of each pair of embeddings.

python examples/minilm/compare.py http://127.0.0.1:8080 TEXT TEXT ...
"""

import sys

import salver
from salver.protocol.errors import SalverError


def main(url: str, *texts: str) -> int:
    with salver.Client(url) as client:
        try:
            embeddings = client.predict_all("minilm", list(texts))["embedding"]
        except SalverError as error:
            print(f"{error.code}: {error}", file=sys.stderr)
            return 1
    for cosines, text in zip(embeddings @ embeddings.T, texts, strict=True):
        print(*(f"{cosine:5.2f}" for cosine in cosines), f" {text}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
