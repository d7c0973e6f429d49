"""Multimodal action quality assessment: PAMFN, its ablations and the methods it is compared with."""

import sys

if sys.argv[:1] == ["-m"]:  # `python -m pamfn...`, whose module is being looked for
    from pamfn import console

    console.start()
