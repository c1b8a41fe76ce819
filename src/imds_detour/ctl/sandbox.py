"""The sandbox's former place: ``python -m imds_detour.ctl.sandbox COMMAND`` keeps working."""

import sys

from imds_detour.ctl.lab.sandbox import main

if __name__ == "__main__":
    sys.exit(main())
