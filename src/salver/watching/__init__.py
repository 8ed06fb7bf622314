"""Registering what appears in a model repository of another server: Triton's, or TensorFlow Serving's.

`sources` lists and copies files, of a directory or below an S3 URL; `layout` says which versions they make; `watcher`
registers each once. Nothing is registered while it is still being written.
"""

from salver.watching.sources import BucketSource, DirectorySource, Source
from salver.watching.watcher import Report, Watcher, WatchOptions

__all__ = ["BucketSource", "DirectorySource", "Report", "Source", "WatchOptions", "Watcher"]
