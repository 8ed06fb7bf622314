"""From the artifacts of other tools to a directory that `salver register` takes.

One file for each source, each with `convert(source, into)`: it fills the fresh directory `into` and says in an
`Imported` what it made and what the source tells of itself. Nothing of a foreign artifact is run here; what is
code will run where Salver runs users' code, in a worker.
"""

from salver.imports.imported import Imported
from salver.imports.recognition import SOURCES, convert_path, recognise

__all__ = ["SOURCES", "Imported", "convert_path", "recognise"]
