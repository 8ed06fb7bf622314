"""Run the Python blocks of a page, one after another in one namespace; print as JSON what each printed.

Usage: PYTHON page_of_code.py PAGE [WHAT=INSTEAD ...]; every WHAT in the code is replaced.
"""

import contextlib
import io
import json
import re
import sys

page, *replacements = sys.argv[1:]
with open(page, encoding="utf-8") as file:
    codes = re.findall(r"^```python\n(.*?)^```$", file.read(), re.MULTILINE | re.DOTALL)
namespace, printed = {}, []
for number, code in enumerate(codes, 1):
    for what, _, instead in (each.partition("=") for each in replacements):
        code = code.replace(what, instead)  # noqa: PLW2901
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(compile(code, f"block {number}", "exec"), namespace)
    printed.append(said.getvalue())
print(json.dumps(printed))
