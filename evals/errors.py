"""Errors of this package. Callers catch EvalError; the subclasses say which input was wrong.

EvalError
├── SampleError      a samples file or a sample
├── OutputError      an output or a set of outputs
├── RunStoreError    the file a run resumes from
├── MetricError      an unknown metric or an unusable argument of one
└── DecisionError    a decision spec, or a record that cannot be replayed
"""


class EvalError(Exception):
    """Base of all errors raised on purpose by this package."""


class SampleError(EvalError):
    """A samples file or a single sample is not usable."""


class OutputError(EvalError):
    """An output, or the set of outputs given for scoring, is not usable."""


class RunStoreError(EvalError):
    """The file that a run writes to and resumes from is not usable."""


class MetricError(EvalError):
    """A metric is unknown or was given an argument it cannot use."""


class DecisionError(EvalError):
    """A decision spec cannot be applied, or a decision record cannot be read."""
