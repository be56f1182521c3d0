"""What each exit code means; see ``docs/cli.md``."""

__all__ = ["EXIT_CODES", "INTERRUPTED", "UNEXPECTED"]

UNEXPECTED = 8
INTERRUPTED = 130

EXIT_CODES = {
    0: "done; with `--check`: treated as in the reviewed plan",
    1: "with `--check`: something is treated otherwise than in the reviewed plan",
    2: "usage: an option or argument that means nothing",
    3: "the model was not found, or could not be loaded",
    4: "the model could not be traced",
    5: "a file of weights or a batch could not be read, or does not fit the model",
    6: "the model, a rule or a plan was refused",
    7: "a result could not be written, to a file or to standard output",
    UNEXPECTED: "the model's own code ended the program, or something unexpected happened",
    INTERRUPTED: "interrupted by Ctrl-C; 128 + n after signal n",
}
