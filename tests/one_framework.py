"""A module run as a program in which no framework but that of the Keras backend can be imported, nor KerasCV.

It also lacks the system calls that only Linux has.

python -m tests.one_framework MODULE ARGUMENTS...
"""

import os
import runpy
import sys

ONLY_LINUX = ("sched_getaffinity", "pread")
HIDDEN = {"tensorflow", "jax", "torch", "keras_cv", "tensorflow_datasets"} - {os.environ["KERAS_BACKEND"]}


class Without:
    """A finder of modules that does not find those."""

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *where):
        return None if name.split(".")[0] in HIDDEN else self.finder.find_spec(name, *where)


if __name__ == "__main__":
    for name in ONLY_LINUX:
        if hasattr(os, name):
            delattr(os, name)
    sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
