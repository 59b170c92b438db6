"""``python -m tiltd.plugins.reconstruct``: one tilt series in, one tomogram out."""

import os
import sys

# One process per core does the work; threads of a linear algebra library beside them would only fight.
for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

from .cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
