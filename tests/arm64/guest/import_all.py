"""Import every module of the bundle, as tests/bundle/test_contents.py does on the machine of the build."""

import os
import sys

(folder,) = [folder for folder in sys.path if os.path.isdir(folder) and "encodings" in os.listdir(folder)]
count = 0
for place, _, names in os.walk(folder):
    for name in names:
        path = os.path.relpath(os.path.join(place, name), folder)
        # imds-detour replaces a part of iptc first; bundle.pyc runs the program
        if name.endswith(".pyc") and name != "bundle.pyc" and not path.startswith("iptc/"):
            __import__(path.removesuffix(".pyc").replace("/", ".").removesuffix(".__init__"))
            count += 1
sys.stdout.write(f"{count} modules\n")
