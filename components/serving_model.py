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
            signature = self._module.signatures["serving_default"]
        except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
            cause = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"'{path}/{MODEL_VERSION}' cannot be loaded: {cause}; export the model again") from error
        # Calling the signature costs twice the time of its graph, most of it for binding names. The operation that
        # it comes to takes tensors in the order of tf.nest.flatten: by sorted name.
        inputs = {i.tensor: i for i in self.spec.inputs}
        self._inputs = [inputs[name] for name in sorted(signature.structured_input_signature[1])]
        self._outputs: list[str] = sorted(signature.structured_outputs)
        self._signature = signature
        self._captured = list(signature.captured_inputs)
        self._types = [signature.structured_outputs[name].dtype for name in self._outputs]

    def predict(self, arrays: Arrays) -> Arrays:
        """Predicts rows.

        Args:
            arrays: by column name, the inputs of the spec, shape [rows], of their dtypes (see rows.py).

        Returns:
            By output name, arrays of shape [rows] or [rows, width].
        """
        # Of an empty array of objects TensorFlow cannot tell the type.
        tensors = [
            tf.constant(arrays[i.name], tf.string) if i.dtype == "string" else arrays[i.name] for i in self._inputs
        ]
        results = tf.raw_ops.StatefulPartitionedCall(
            args=[*tensors, *self._captured], Tout=self._types, f=self._signature
        )
        outputs = dict(zip(self._outputs, results, strict=True))
        return {output.name: outputs[output.name].numpy() for output in self.spec.outputs}
