"""`python -m bptt` is the command `bptt`."""

import sys

from bptt.cli import main

sys.exit(main())
