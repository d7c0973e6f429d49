"""Multimodal action quality assessment: PAMFN, its ablations and the methods it is compared with."""

import sys

from pamfn import console

if sys.argv[:1] == ["-m"]:  # `python -m pamfn...`, whose module is being looked for
    console.start()
else:
    console.end_with_parent()
