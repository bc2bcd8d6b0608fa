"""A torch module as a classifier, on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import copy
from threading import get_ident

import numpy as np
import torch
from jaxtyping import Float32, Int, Shaped
from torch._subclasses.fake_tensor import FakeTensor

from wobbliness.classifiers.base import ScoredClassifier, Twin, check_no_labels, in_blocks
from wobbliness.classifiers.compile.export import compile_gated, compile_module, disagreement
from wobbliness.classifiers.compile.graph import OnnxGraph
from wobbliness.classifiers.execution import Execution
from wobbliness.classifiers.gated import Gated, GatedModule
from wobbliness.classifiers.probing import order_of, require_same, sorted_scores
from wobbliness.classifiers.signature.module_outputs import OneOutput, Reading
from wobbliness.classifiers.signature.wrapped_module import TwoClasses, described_steps
from wobbliness.perturbations.network.gated_nodes import GatedNodes
from wobbliness.runtime.errors import reason_of
from wobbliness.runtime.process_state import borrowed_state, is_forked

# Remarks of an Execution, in words.
ONE_AT_A_TIME = "one copy at a time: the module takes no more at once"
EAGER_THREADS = "one calling thread, with torch's own threads inside"
# Images and calls that are compared after an export.
FEW_REPEATED, NUM_REPEATS = 2, 8


@contextmanager
def torch_threads(num_threads: int) -> Iterator[None]:
    """Fixes the number of torch's threads and so the order of its sums; restored afterwards."""
    with borrowed_state():
        before = torch.get_num_threads()
        torch.set_num_threads(num_threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


CPU = torch.device("cpu")


def device_of(module: torch.nn.Module) -> torch.device:
    """Returns the device of a module's first parameter or buffer; the CPU for one without any."""
    return next((tensor.device for tensor in (*module.parameters(), *module.buffers())), CPU)


def check_has_values(module: torch.nn.Module) -> None:
    """Raises ValueError where a parameter or buffer is uninitialised or on the meta device."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if torch.nn.parameter.is_lazy(tensor):
            raise ValueError(
                f"expected a module with its weights, got {name} not yet initialised; run it on an "
                "image first"
            )
        if tensor.is_meta or isinstance(tensor, FakeTensor):
            raise ValueError(
                f"expected a module with its weights, got {name} without values, on the device meta"
            )


def has_fast_bfloat16(device: torch.device = CPU) -> bool:
    """Checks whether the processor, or an accelerator, multiplies in bfloat16 natively."""
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported())
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


@contextmanager
def evaluation_mode(module: torch.nn.Module) -> Iterator[None]:
    """Sets evaluation mode and restores each part's own mode afterwards.

    Nothing is changed where all parts are in evaluation mode already.
    """
    with borrowed_state():
        learning = [part for part in module.modules() if getattr(part, "training", False)]
        if not learning:
            yield
            return
        modes = [(part, part.training) for part in module.modules() if hasattr(part, "training")]
        try:
            _evaluate(module)
            yield
        finally:
            for part, training in modes:
                part.training = training


def _evaluate(module: torch.nn.Module) -> None:
    """Sets a module into evaluation mode.

    The mode of an exported program is part of it: there is nothing to set.
    """
    try:
        module.eval()
    except NotImplementedError:
        for part in module.modules():
            part.training = False


class TorchClassifier(ScoredClassifier):
    """A classifier around a module on the CPU that gives logits `(B, K)`.

    It is compiled to an ONNX graph and checked on real inputs (see `compiled.disagreement`); where
    that fails it runs eagerly, channels-last, in the type of its own parameters. Either way in
    evaluation mode. A compiled graph keeps nothing from call to call and runs on one core for each
    calling thread. A module may keep anything on itself: it runs for one caller at a time.

    Attributes:
        module: the module itself.
        thread_safe: whether it is compiled at the moment.
        keeps_network: whether the graph is kept for `twin`.
    """

    thread_safe = False
    keeps_network = False

    def __init__(
        self,
        module: torch.nn.Module,
        *,
        num_classes: int | None = None,
        compiled: bool = True,
        image_shape: tuple[int | None, ...] | None = None,
        output: str | int | None = None,
    ) -> None:
        """Wraps a module.

        Args:
            module: gives logits `(B, K)` for a batch of images, or several tensors of which one
                predicts the classes.
            num_classes: K, to be checked against the logits.
            compiled: whether to compile it where that can be done.
            image_shape: of one image, where it is known.
            output: name or number of the tensor that predicts the classes, where the module gives
                several.
        """
        self.num_classes, self.image_shape = num_classes, image_shape
        self.module = module
        self._dtypes = _float_types(module)
        self._dtype = self._dtypes[0]
        self._is_channels_last = True
        self._wants_compiled = compiled
        self._wanted = output
        self._reading: Reading | None = None
        self._graph: OnnxGraph | None = None
        self._network: bytes | None = None

    def scoring_module(self, examples: Float32[np.ndarray, "B ..."]) -> torch.nn.Module:
        """Returns the module itself, or wrapped so that it gives scores `(B, K)` alone.

        Args:
            examples: some images, to see what it gives.

        Raises:
            ValueError: the module refuses images of this shape, gives no logits, or one score for
                two classes without a threshold.
        """
        with self._made_ready():
            scores = self._first_scores(examples.copy())
        reading = self._reading or Reading()
        module = self.module if reading.is_plain else OneOutput(self.module, reading)
        if scores[0].size > 1:
            return module
        # One score without a threshold is refused here; labels are none.
        self.labels_of(scores, len(scores))
        threshold = self.class_threshold
        return module if threshold is None else TwoClasses(module, threshold)

    def preprocessing(self) -> dict[str, str]:
        """Describes the steps around the module: pixel values, layout, and a chosen output."""
        output = {} if self._wanted is None else {"output": str(self._wanted)}
        return super().preprocessing() | output | described_steps(self.module)

    def classify(
        self, images: Float32[np.ndarray, "B ..."], block_size: int
    ) -> Int[np.ndarray, " B"]:
        """Returns the predicted class of each image.

        Raises:
            ValueError: the module refuses images of this shape, or gives no logits.
        """
        return self.labels_of(self.answers(images, block_size), len(images))

    def answers(
        self, images: Float32[np.ndarray, "B ..."], block_size: int
    ) -> Shaped[np.ndarray, "B ..."]:
        """Returns the module's answers before a class is chosen.

        Raises:
            ValueError: the module refuses images of this shape, or gives no logits.
        """
        if self._graph is not None:
            return self._graph.run(self.as_input(images), block_size)
        with self._made_ready():
            return np.asarray(in_blocks(self._eager_scores, images, block_size))

    @contextmanager
    def session(self, examples: Float32[np.ndarray, "B ..."]) -> Iterator[Execution]:
        """Compiles the module and uses the graph if it agrees with the module in evaluation mode.

        The module itself is not held meanwhile.
        """
        with self._made_ready():
            # Found by the same call that gives the scores to compare the graph with.
            with largest_step(self.module) as values:
                scores, size = self._scores_of_examples(examples)
            # Of two classes the second score is the module's own one less the threshold.
            if isinstance(self.module, TwoClasses):
                check_no_labels(scores[:, 1] + self.module.threshold)
            graph, reason = self._compiled(examples, scores)
        self._graph, self.thread_safe = graph, graph is not None
        try:
            yield Execution(
                backend="torch" if graph is None else "onnxruntime",
                reason=reason,
                values_per_image=(values[0] // (size or len(examples))) or None,
                block_size=size if graph is None else None,
                company=ONE_AT_A_TIME if size and graph is None else None,
                threads=EAGER_THREADS if graph is None else None,
            )
        finally:
            self._graph, self._network, self.thread_safe = None, None, False

    def twin(self, images: Float32[np.ndarray, "B ..."]) -> Twin:
        """Returns the quantised twin of the compiled graph, within a session.

        Raises:
            ValueError: it is not compiled, or as for `OnnxGraph.quantised`.
        """
        if self._graph is None or self._network is None or self.takes_integers:
            raise ValueError("expected a compiled graph of floats, got none")
        twin = copy(self)
        twin._graph, cost = self._graph.quantised(images, self._network)
        twin._network = None
        return Twin(classifier=twin, relative_cost=cost)

    def gated(self, nodes: GatedNodes, images: Float32[np.ndarray, "B ..."]) -> Gated:
        """Returns the classifier of rows of image values and gates, a compiled graph.

        Raises:
            ValueError: as for `compile_gated`; the graph does not agree with the module, or none is
                wanted.
        """
        with self._made_ready():
            with largest_step(self.module) as values:
                scores, size = self._scores_of_examples(images)
            if reason := self._why_eager():
                raise ValueError(
                    f"expected a module that can be compiled, got one that is not: {reason}"
                )
            found = compile_gated(
                self.module,
                images,
                nodes,
                self._reading or Reading(),
                lambda: self._check_repeats(images, scores),
            )
        # With gates of 1 the graph has to agree with the module as it was.
        rows = np.ones((len(images), images[0].size + found.num_gates), np.float32)
        rows[:, : images[0].size] = images.reshape(len(images), -1)
        if reason := disagreement(found.graph, rows, scores):
            raise ValueError(f"expected a graph that agrees with its module, got another: {reason}")
        largest = (values[0] // (size or len(images))) or None
        classifier = GatedModule(
            found.graph, num_classes=self.num_classes, values_per_image=largest
        )
        classifier.threshold = self.threshold
        classifier.declared_threshold = self.declared_threshold
        return Gated(classifier=classifier, num_gates=found.num_gates)

    def _why_eager(self) -> str | None:
        """Describes why the module is not to be compiled, whatever its export may be."""
        if not self._wants_compiled:
            return "eager as asked"
        if self._dtype != torch.float32:
            return f"its parameters are {self._dtype}, not torch.float32"
        return None

    def _scores_of_examples(
        self, examples: Float32[np.ndarray, "B ..."]
    ) -> tuple[Shaped[np.ndarray, "B ..."], int | None]:
        """Returns scores, and the block size where the module takes one image at a time only."""
        try:
            # a module may change its batch in place
            return self._first_scores(examples.copy()), None
        except Exception as error:  # of any kind: a module may check its batch itself
            # One image at a time; the first error is the one to report if that fails, too.
            try:
                self._reading = None
                self._first_scores(examples[:1].copy())
                scores = [self._eager_scores(image[None].copy()) for image in examples]
                return np.concatenate(scores), 1
            except Exception:
                raise error from None

    @contextmanager
    def _made_ready(self) -> Iterator[None]:
        """Sets evaluation mode for this thread alone, with one torch thread in a forked process.

        More threads would wait for each other there.
        """
        with evaluation_mode(self.module), torch_threads(1) if is_forked() else nullcontext():
            yield

    def _compiled(
        self, examples: np.ndarray, scores: np.ndarray
    ) -> tuple[OnnxGraph | None, str | None]:
        if reason := self._why_eager():
            return None, reason
        # As the module gets them: token ids are integers.
        given = self.as_input(examples)
        compilation = compile_module(
            self.module,
            given,
            self._reading or Reading(),
            lambda: self._check_repeats(examples, scores),
            keep_network=self.keeps_network,
        )
        self._network = compilation.network
        if compilation.graph is None:
            return None, compilation.reason
        # Scores that look sorted are refused only if the graph holds a step that sorts them.
        if compilation.sorts and (order := order_of(scores)):
            raise ValueError(sorted_scores(order))
        reason = disagreement(compilation.graph, given, scores)
        return (compilation.graph, None) if reason is None else (None, reason)

    def _check_repeats(self, examples: np.ndarray, scores: np.ndarray) -> None:
        """Compares the module's scores before its export with those after it, and with each other.

        What depends on a clock or on chance is a constant of the graph, which always answers alike.

        Raises:
            NotRepeatableError: they differ.
        """
        # The export lies between these two, the clock's next tick between some of the others.
        require_same(scores, self._scores_of_examples(examples)[0])
        few = self._scores_of_examples(examples[:FEW_REPEATED])[0]
        for _ in range(NUM_REPEATS):
            require_same(few, self._scores_of_examples(examples[:FEW_REPEATED])[0])

    def _first_scores(self, images: Float32[np.ndarray, "B ..."]) -> Shaped[np.ndarray, "B ..."]:
        """Computes scores in the type of the first parameter, or in another one that works."""
        # A quantised or mixed network may take another type than that of its first parameter.
        errors: list[ValueError] = []
        for dtype in self._dtypes:
            self._dtype = dtype
            try:
                return self._eager_scores(images)
            except ValueError as error:
                errors.append(error)
        raise errors[0]

    def _eager_scores(self, images: Float32[np.ndarray, "B ..."]) -> Shaped[np.ndarray, "B ..."]:
        with torch.inference_mode():
            batch = torch.from_numpy(self.as_input(images))
            answer = self._forward(batch if self.takes_integers else batch.to(dtype=self._dtype))
            if self._reading is None:
                self._reading = Reading.of(
                    answer, len(images), wanted=self._wanted, num_classes=self.num_classes
                )
            scores = self._reading.scores(answer)
        if scores.ndim not in (1, 2) or len(scores) != len(images):
            raise ValueError(
                f"expected the module to give logits ({len(images)}, K), got shape "
                f"{tuple(scores.shape)}"
            )
        return (scores.float() if scores.is_floating_point() else scores).detach().numpy()

    def _forward(self, batch: torch.Tensor) -> object:
        try:
            return self._run(batch)
        except (RuntimeError, IndexError, TypeError, AssertionError, NotImplementedError) as error:
            reason = reason_of(error)
            raise ValueError(
                f"expected images that the module accepts, got {tuple(batch.shape[1:])} each: "
                f"{reason}"
            ) from error

    def _run(self, batch: torch.Tensor) -> object:
        """Runs the module channels-last, until it fails once.

        A module with `x.view(n, -1)`, for instance, needs contiguous features.
        """
        if batch.ndim == 4 and self._is_channels_last:
            try:
                # torch's convolutions on the CPU are faster with the channels last in memory.
                return self.module(batch.contiguous(memory_format=torch.channels_last))
            except RuntimeError:
                # Given up only if the module takes the same batch in the usual order.
                answer: object = self.module(batch)
                self._is_channels_last = False
                return answer
        return self.module(batch)


def _float_types(module: torch.nn.Module) -> tuple[torch.dtype, ...]:
    """Returns the float types of a module's tensors, in order; float32 where there are none."""
    tensors = (
        tensor for tensor in (*module.parameters(), *module.buffers()) if tensor.is_floating_point()
    )
    return tuple(dict.fromkeys(tensor.dtype for tensor in tensors)) or (torch.float32,)


@contextmanager
def largest_step(module: torch.nn.Module) -> Iterator[list[int]]:
    """Yields a list of one number: the most values in input and output of one leaf module.

    The number is updated by every call of the module meanwhile.

    Calls of other threads do not count.
    """
    largest, thread = [0], get_ident()

    def record(_: torch.nn.Module, inputs: object, output: object) -> None:
        if get_ident() == thread:
            largest[0] = max(largest[0], _num_values(inputs, output))

    with borrowed_state():
        hooks = [part.register_forward_hook(record) for part in _leaves(module)]
        try:
            yield largest
        finally:
            for hook in hooks:
                hook.remove()


def _leaves(module: torch.nn.Module) -> list[torch.nn.Module]:
    """Returns modules without others in them, whose input and output are those of one step."""
    leaves = [part for part in module.modules() if not any(True for _ in part.children())]
    # A script takes no hooks.
    return [part for part in leaves if not isinstance(part, torch.jit.ScriptModule)]


def _num_values(inputs: object, output: object) -> int:
    values = (*(inputs if isinstance(inputs, tuple) else ()), output)
    return sum(value.numel() for value in values if isinstance(value, torch.Tensor))
