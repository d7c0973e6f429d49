"""Multimodal action quality assessment: PAMFN, its ablations and the methods it is compared with."""

import sys

if sys.argv[:1] == ["-m"]:  # `python -m pamfn...`, whose module is being looked for
    if not sys.flags.safe_path:
        del sys.path[0]  # the current folder, before anything: what lies there may bear the name of any module
    from pamfn import console

    console.start()
