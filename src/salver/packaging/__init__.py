"""A container recipe for one endpoint: a directory that `docker build` needs nothing else for.

It holds a Dockerfile, the exact versions of everything installed here that serving needs, Salver
itself as a wheel, and a home with one endpoint in it. Secrets stay out: tokens and their key are
made when the container first starts, certificates are mounted. The files in `image/` are the
templates; `@NAME@` stands for a value.
"""

from salver.packaging.pins import pinned_requirements
from salver.packaging.recipe import Recipe, write_recipe

__all__ = ["Recipe", "pinned_requirements", "write_recipe"]
