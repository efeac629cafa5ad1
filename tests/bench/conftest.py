"""The benches are scripts that find each other beside them."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "bench"))  # last: `codecs` there is a bench
