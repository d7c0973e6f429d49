"""`python -m pamfn.check data=NAME`: read a data set as a training would, and say what is there and what is wrong.

All settings of pamfn.train are known, e.g. `+experiment=fisv_tes modalities=[rgb]`; nothing is trained or written.
"""

import argparse

from pamfn.command_line.process import refusing, say


@refusing()
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pamfn.check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="+", metavar="KEY=VALUE", help="settings, as given to pamfn.train")
    arguments = parser.parse_args()
    from pamfn.pipeline.data_check import check_data  # here, since it brings torch

    say(check_data(arguments.overrides))


if __name__ == "__main__":
    main()
