"""Random networks whose verdicts are known from how they were put together.

``program`` says what a network is, as data, and runs it; ``operations`` is the table of what it is made of;
``ledger`` keeps the books on what each operation does to the channels of each convolution, from the
definitions alone; ``strategies`` draws programs. The tests of the default run draw a few dozen. A thousand::

    pytest tests/properties --hypothesis-profile=nightly

``reshaped`` draws networks with reshapes of all kinds between a convolution and its norm, and holds them against
numbers instead of books. A hundred in the default run, a thousand::

    python -m tests.properties.reshaped --networks 1000
"""
