"""`python -m docker_policy`."""

import sys

from docker_policy.cli import main

sys.exit(main())
