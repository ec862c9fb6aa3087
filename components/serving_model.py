"""An exported model, loaded: what batch prediction and the server share, so that what is evaluated is served."""

from pathlib import Path

import tensorflow as tf

from components.artifacts import MODEL_VERSION
from components.errors import InputError
from components.model_spec import ModelSpec, read_spec
from components.rows import Arrays


class ServingModel:
    """A SavedModel with the spec beside it."""

    def __init__(self, path: Path) -> None:
        """Loads it.

        Args:
            path: directory that train_model wrote: `1/` and spec.json.

        Raises:
            InputError: it is no such directory, or the SavedModel is damaged.
        """
        self.spec: ModelSpec = read_spec(path)
        try:
            self._module = tf.saved_model.load(str(path / MODEL_VERSION))
            self._serve = self._module.signatures["serving_default"]
        except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
            cause = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"'{path}/{MODEL_VERSION}' cannot be loaded: {cause}; export the model again") from error

    def predict(self, arrays: Arrays) -> Arrays:
        """Predicts rows.

        Args:
            arrays: by column name, the inputs of the spec, shape [rows] (see rows.py).

        Returns:
            By output name, arrays of shape [rows] or [rows, width].
        """
        tensors = {i.tensor: tf.constant(arrays[i.name], tf.as_dtype(i.dtype)) for i in self.spec.inputs}
        outputs = self._serve(**tensors)
        return {output.name: outputs[output.name].numpy() for output in self.spec.outputs}
