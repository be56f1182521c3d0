"""Random networks whose verdicts are known from how they were put together.

``program`` says what a network is, as data, and runs it; ``operations`` is the table of what it is made of;
``ledger`` keeps the books on what each operation does to the channels of each convolution, from the
definitions alone; ``networks`` draws programs. The tests of the default run draw a few dozen. A thousand::

    pytest tests/properties --hypothesis-profile=nightly
"""
