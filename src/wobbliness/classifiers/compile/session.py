"""ONNX Runtime's session of a graph, and the layout that the graph implies."""

from pathlib import Path

import onnx
import onnxruntime

from wobbliness.classifiers.signature.layouts import Layout
from wobbliness.runtime.errors import reason_of

# Where a graph that is given as bytes finds its external data.
EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"
# Of ONNX Runtime's levels of logging the highest: of what is less, the error tells.
FATAL = 4
# The permutation of a Transpose from (B, H, W, C) to (B, C, H, W).
TO_CHANNELS_FIRST = [0, 3, 1, 2]


def open_session(content: bytes, name: str, folder: Path | None) -> onnxruntime.InferenceSession:
    """Opens a session on one core of the CPU.

    Args:
        content: of the ONNX file.
        name: of the file, for errors.
        folder: of the file, where its external data is.

    Raises:
        ValueError: the runtime cannot read it.
    """
    options = onnxruntime.SessionOptions()
    # One core for each session: workers run side by side, each in a block of its own.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = FATAL
    if folder is not None:
        options.add_session_config_entry(EXTERNAL_FOLDER, str(folder))
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    # ONNX Runtime raises classes of its own that share no base but Exception.
    except Exception as error:
        raise ValueError(
            f"expected a readable ONNX file, got {name}: {reason_of(error)}"
        ) from error


def layout_hint(graph: onnx.GraphProto) -> Layout | None:
    """Infers the layout from the steps that take the input itself.

    ONNX convolves channels first; graphs of channels last transpose first.
    """
    given = {tensor.name for tensor in graph.initializer}
    images = next((value.name for value in graph.input if value.name not in given), None)
    takers = [node for node in graph.node if node.input and node.input[0] == images]
    if any(node.op_type == "Conv" for node in takers):
        return "nchw"
    if any(
        list(attribute.ints) == TO_CHANNELS_FIRST for node in takers for attribute in node.attribute
    ):
        return "nhwc"
    return None
