"""Run in the environment of the package `magika`: its own answers for the paths on standard input, as JSON."""

import json
import sys
from pathlib import Path

from magika import Magika

magika = Magika()
answers = [magika.identify_bytes(Path(path).read_bytes()) for path in json.load(sys.stdin)]
json.dump([[str(answer.output.label), answer.score] for answer in answers], sys.stdout)
