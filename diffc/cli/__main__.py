"""``python -m diffc.cli``: the command ``diffc`` without an installed script."""

import sys

from diffc.cli.main import main

sys.exit(main())
