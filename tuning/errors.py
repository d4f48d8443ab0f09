"""Errors of the tuning package. The service maps them to status codes; messages name the value."""


class TuningError(Exception):
    """Base of every error this package raises."""


class PromptError(TuningError):
    """A conversation cannot be rendered with the tokenizer's chat template."""


class BaseModelError(TuningError):
    """A base model file is missing, damaged or of an unsupported kind."""


class ExampleError(TuningError):
    """A support example is refused; the message is the reason."""


class SnapshotError(TuningError):
    """A dataset snapshot is missing, damaged or not what its manifest says."""


class TuneConfigError(TuningError):
    """A tuning configuration has a value outside its valid choices."""


class TrainingInterruptedError(TuningError):
    """Training stopped on request; the last complete checkpoint can be resumed."""


class TrainingFailedError(TuningError):
    """Training produced no usable adapter (for example a loss that is not finite)."""


class AdapterError(TuningError):
    """An adapter directory is missing, damaged or made for another base model."""


class TemplateError(TuningError):
    """A reader passage template breaks the template rules."""
