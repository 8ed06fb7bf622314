"""Ask an endpoint for predictions from Python.

    python examples/client/predict.py http://127.0.0.1:8080 iris iris-model/rows.npy

`salver.Client` looks the endpoint's signature up, sends the array in binary and gives arrays
back. The token, where the server asks for one, comes from SALVER_TOKEN.
"""

import os
import sys

import numpy as np

import salver
from salver.protocol.errors import SalverError


def main(url: str, endpoint: str, file: str) -> int:
    rows = np.load(file)
    with salver.Client(url, token=os.environ.get("SALVER_TOKEN"), timeout_s=5.0) as client:
        try:
            answer = client.predict(endpoint, rows)
        except SalverError as error:
            print(f"{error.code}: {error}", file=sys.stderr)
            return 1
    print(answer)
    for name, array in answer.items():
        print(f"{name}: {array.tolist()}")
    for warning in answer.warnings:
        print(f"warning: {warning}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
