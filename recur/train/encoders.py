"""What turns a picture into features for the caption network: our own trunk, an ONNX file, a Hugging Face backbone.

Whatever it is, it is brought into one form: pixels float [B, 3, Y, X], RGB 0..255, go in; a grid [B, F, gy, gx] or a
vector [B, F] comes out. Normalisation, dropped class tokens and layout changes become part of the graph, so that
training and the exported `encoder.onnx` compute the same thing and the runtime needs to know nothing about it.

B pictures, Y rows and X columns of pixels, R = gy * gx regions, F channels.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recur.bundle import read_bundle
from recur.engine.vision import Encoder
from recur.errors import RecurError
from recur.files import write_atomically
from recur.hub import models, whole_encoder
from recur.nn.export import export_trunk, import_trunk
from recur.nn.export_heads import without_heads
from recur.nn.queries import HuggingFaceRegions
from recur.nn.vision import Trunk
from recur.train.graph import INPUT, OUTPUT, conform, first_line, load_graph, load_session, picture_side, token_grid
from recur.train.team import device_of

DEFAULT_SIZE = 224
REGIONS = "regions"  # the output with the boxes of what `features` are of, where they are no grid
# Used when a Hugging Face model comes without preprocessor_config.json: mean and deviation of ImageNet's pixels.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TOLERANCE = 1e-2  # of the largest feature; further apart than this, two ways to compute the same thing are not the same


class FeatureEncoder:
    """Pictures to features. Made by `open_encoder`.

    name      where it came from, as the user wrote it
    size      rows and columns of its pictures
    channels  F
    grid      (gy, gx); (1, 1) for a vector
    module    the torch module [B, 3, Y, X] -> [B, F, gy, gx] or [B, F] when it can be fine-tuned, else None
    """

    def __init__(
        self, *, name: str, size: int, encoded: bytes | None, module: nn.Module | None, threads: int | None = None
    ) -> None:
        self.name, self.size, self.module = name, size, module
        self._encoded = encoded
        self._engine = Encoder(encoded, threads=threads) if module is None and encoded is not None else None
        self.grid = (1, 1)
        self.channels = 0
        # Noise rather than one colour: two pictures of a batch must not come out equal by accident.
        probe = np.random.default_rng(0).integers(0, 256, (2, size, size, 3)).astype(np.uint8)
        try:
            both, first = self._look(probe), self._look(probe[:1])
        except RecurError:
            raise
        except Exception as error:  # whatever a foreign model throws
            raise RecurError(
                f"{name}: cannot look at pictures of {size} x {size} ({first_line(error)}); "
                "give the size it was made for"
            ) from error
        if not np.isfinite(both).all() or _distance(both[:1], first) > TOLERANCE:
            raise RecurError(
                f"{name}: the features of a picture are not finite or depend on the other pictures of its batch; "
                "export it in inference mode with a dynamic batch axis"
            )
        self.channels = int(both.shape[2])

    @property
    def regions(self) -> int:
        """R"""
        return self.grid[0] * self.grid[1]

    @property
    def identity(self) -> str:
        """SHA-256 of what it computes: of the graph, or of the module and its present weights."""
        digest = hashlib.sha256(f"{self.size} {self.module}".encode())
        if self.module is None:
            digest.update(self._encoded or b"")
        else:
            for name, value in sorted(self.module.state_dict().items()):
                digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """For bundle.json["encoder"]. Mean 0 and deviation 1: the graph takes pixels in 0..255 as they are."""
        return {
            "file": "encoder.onnx",
            "input": INPUT,
            "output": OUTPUT,
            "size": self.size,
            "mean": [0.0, 0.0, 0.0],
            "std": [1.0, 1.0, 1.0],
            "grid": list(self.grid),
            "channels": self.channels,
            **({"regions": REGIONS} if isinstance(self.module, HuggingFaceRegions) else {}),
        }

    def features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [B, Y, X, 3], RGB, Y = X = size -> float32 [B, R, F], regions row by row. No gradient."""
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (self.size, self.size, 3):
            raise RecurError(
                f"{self.name}: got {pixels.dtype} {list(pixels.shape)}, expected uint8 pixels "
                f"[B, {self.size}, {self.size}, 3]; resize them first"
            )
        return self._look(pixels)

    def to_onnx(self) -> bytes:
        """The graph `pixels` -> `features` with the module's present weights. RecurError when it cannot be written."""
        if isinstance(self.module, Trunk):
            return export_trunk(self.module)
        if self.module is not None:
            outputs = (OUTPUT, REGIONS) if isinstance(self.module, HuggingFaceRegions) else (OUTPUT,)
            module = self.module.both() if isinstance(self.module, HuggingFaceRegions) else self.module
            return export_module(module, size=self.size, name=self.name, outputs=outputs)
        assert self._encoded is not None
        return self._encoded

    def export_onnx(self, path: str | Path) -> None:
        """Write `to_onnx()` to a file."""
        write_atomically(path, self.to_onnx())

    def _look(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """[B, Y, X, 3] -> [B, R, F]; notes the grid."""
        if self.module is None:
            assert self._engine is not None
            features = self._engine(pixels)
            self.grid = self._engine.grid
            return features
        training = self.module.training
        self.module.eval()
        try:
            with torch.inference_mode():
                planes = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
                out: Tensor = self.module(planes.to(device_of(self.module)).float())
        finally:
            self.module.train(training)
        if out.ndim == 2:
            out = out[:, :, None, None]
        self.grid = (int(out.shape[2]), int(out.shape[3]))
        return cast(NDArray[np.float32], out.float().flatten(2).transpose(1, 2).cpu().contiguous().numpy())


def open_encoder(
    spec: str,
    *,
    output_name: str | None = None,
    size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    threads: int | None = None,
) -> FeatureEncoder:
    """The encoder that `spec` names.

    `embedded`         the one that comes with the package
    a bundle           the encoder inside it (a folder or .zip)
    FILE.onnx          a graph with a picture as its one input, [B, 3, Y, X] or [B, Y, X, 3]. `output_name` chooses
                       among several outputs (or any tensor inside); `mean` and `std` (of pixels in 0..255, one number
                       a colour) are for graphs that expect normalised pictures
    anything else      a Hugging Face model: a folder, or a name that `transformers` finds on disk or downloads

    `size` is the side of the pictures in pixels where the network leaves it open; `threads` None: all processors.
    RecurError says what was found and what to do.
    """
    if size is not None and size < 1:
        raise RecurError(f"encoder size: got {size}, expected a number of pixels above 0")
    path = Path(spec)
    foreign = {"output_name": output_name, "mean": mean, "std": std}
    if path.suffix.lower() == ".onnx":
        if not path.is_file():
            raise RecurError(f"{spec}: no such file; give the path of an .onnx file")
        return _open_onnx(path, name=spec, size=size, output_name=output_name, mean=mean, std=std, threads=threads)
    if given := [key for key, value in foreign.items() if value is not None]:
        raise RecurError(f"{spec}: {', '.join(given)} can be given for an .onnx file only; leave it out")
    if spec == "embedded" or (path / "bundle.json").is_file() or path.is_file():
        encoded, bundle_size = _bundle_encoder(spec)
        return _open_onnx(encoded, name=spec, size=size, default_size=bundle_size, threads=threads)
    return _open_hugging_face(spec, size=size)


def _bundle_encoder(spec: str) -> tuple[bytes, int]:
    """The encoder.onnx of a bundle and the size of its pictures."""
    if spec == "embedded":
        own = [model.path for model in models() if model.task == "caption"]
        if not own:
            raise RecurError("embedded: this installation comes without a captioner; name another encoder")
        bundle = read_bundle(own[0], task="caption")
    else:
        bundle = read_bundle(spec)
    return whole_encoder(bundle), int(bundle.meta["encoder"]["size"])


def trunk_of(spec: str) -> tuple[bytes | None, int | None]:
    """The graph of the trunk that `spec` names, with its head off, and the size of its pictures where that is known.

    None where `spec` is no file: a Hugging Face model.
    """
    path = Path(spec)
    if path.suffix.lower() == ".onnx" and path.is_file():
        return path.read_bytes(), None
    if spec == "embedded" or (path / "bundle.json").is_file() or path.is_file():
        encoded, size = _bundle_encoder(spec)
        return without_heads(encoded), size
    return None, None


def _open_onnx(
    source: bytes | Path,
    *,
    name: str,
    size: int | None,
    default_size: int = DEFAULT_SIZE,
    output_name: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    threads: int | None,
) -> FeatureEncoder:
    model = load_graph(source, name=name)
    side = picture_side(model, name=name)
    if side is not None and size is not None and side != size:
        raise RecurError(f"{name}: its pictures are {side} x {side}, got size {size}; leave the size out")
    size = side or size or default_size
    if any(entry.key == "recur.trunk" for entry in model.metadata_props):
        if output_name not in (None, OUTPUT) or mean is not None or std is not None:
            raise RecurError(f"{name}: an encoder of recur needs no output name, mean or std; leave them out")
        encoded = source if isinstance(source, bytes) else source.read_bytes()
        return FeatureEncoder(name=name, size=size, encoded=encoded, module=import_trunk(encoded), threads=threads)
    encoded = conform(model, name=name, size=size, output_name=output_name, mean=mean, std=std)
    return FeatureEncoder(name=name, size=size, encoded=encoded, module=None, threads=threads)


# ---------------------------------------------------------------------------------------------------- Hugging Face


class HuggingFaceGrid(nn.Module):
    """A `transformers` vision model as pixels [B, 3, Y, X] in 0..255 -> [B, F, gy, gx]."""

    def __init__(
        self, model: nn.Module, *, scale: float, mean: Sequence[float], std: Sequence[float], resize_positions: bool
    ) -> None:
        super().__init__()
        self.model = model
        self.scale, self.resize_positions = scale, resize_positions
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).reshape(-1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        mean, std = cast(Tensor, self.mean), cast(Tensor, self.std)
        options = {"interpolate_pos_encoding": True} if self.resize_positions else {}
        hidden: Tensor = self.model(pixel_values=(pixels * self.scale - mean) / std, **options).last_hidden_state
        if hidden.dim() == 4:
            return hidden
        skip, side = token_grid(int(hidden.shape[1]), name=type(self.model).__name__)
        return hidden[:, skip:].transpose(1, 2).reshape(-1, hidden.shape[2], side, side)


def _open_hugging_face(spec: str, *, size: int | None) -> FeatureEncoder:
    try:
        # By name, because a type checker that follows this import reads all of transformers.
        transformers: Any = importlib.import_module("transformers")
        processing: Any = importlib.import_module("transformers.image_processing_base")
    except ImportError as error:
        raise RecurError(
            f"{spec}: not a file and not a bundle; to use a Hugging Face model, pip install transformers"
        ) from error
    with _quiet(transformers):
        try:
            kinds = transformers.AutoConfig.from_pretrained(spec).architectures or ()
            detects = any(kind.endswith("ForObjectDetection") for kind in kinds)
            auto = transformers.AutoModelForObjectDetection if detects else transformers.AutoModel
            model, report = auto.from_pretrained(spec, dtype=torch.float32, output_loading_info=True)
        except Exception as error:  # OSError, ValueError, and whatever the hub client or a weight file throws
            raise RecurError(
                f"{spec}: not a file, not a bundle, and as a Hugging Face model it cannot be loaded "
                f"({first_line(error)}); check the name, or download the model and give its folder"
            ) from error
        try:
            processor, _ = processing.ImageProcessingMixin.get_image_processor_dict(spec)
        except Exception:  # many backbones come without one
            processor = {}
    missing = [key for key in report["missing_keys"] if not any(part in key for part in ("pool", "head", "mask_token"))]
    if missing:
        raise RecurError(
            f"{spec}: lacks {len(missing)} weights ({', '.join(sorted(missing)[:3])}, …); download the model again"
        )
    vision = getattr(model, "vision_model", model)
    parameters = inspect.signature(vision.forward).parameters
    if "pixel_values" not in parameters:
        raise RecurError(f"{spec}: {type(model).__name__} does not take pictures; name a vision model")
    config = vision.config
    native = _side(getattr(config, "image_size", None))
    size = size or _side(processor.get("crop_size")) or _side(processor.get("size")) or native or DEFAULT_SIZE
    rescale = float(processor.get("rescale_factor", 1 / 255)) if processor.get("do_rescale", True) else 1.0
    normalise = processor.get("do_normalize", True)
    mean = processor.get("image_mean") or IMAGENET_MEAN if normalise else (0.0, 0.0, 0.0)
    std = processor.get("image_std") or IMAGENET_STD if normalise else (1.0, 1.0, 1.0)
    module: nn.Module
    if detects:
        module = HuggingFaceRegions(model, scale=rescale, mean=mean, std=std)
    else:
        resize = native is not None and size != native and "interpolate_pos_encoding" in parameters
        module = HuggingFaceGrid(vision, scale=rescale, mean=mean, std=std, resize_positions=resize)
    return FeatureEncoder(name=spec, size=size, encoded=None, module=module.eval())


def _side(found: Any) -> int | None:
    """The side in pixels from 224, [224, 224], {"height": 224, …} or {"shortest_edge": 224}."""
    if isinstance(found, dict):
        found = found.get("height") or found.get("shortest_edge")
    if isinstance(found, (list, tuple)):
        found = found[0] if found else None
    return int(found) if found else None


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No bars and no warnings about unused heads while a backbone loads."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def export_module(module: nn.Module, *, size: int, name: str, outputs: Sequence[str] = (OUTPUT,)) -> bytes:
    """A torch module as ONNX, checked against the module on other pictures and another batch size.

    The module gives one tensor, or a tuple of as many as `outputs` names.
    """
    training, device = module.training, device_of(module)
    module = module.eval().cpu()
    reasons = []
    try:
        generator = torch.Generator().manual_seed(1)
        example, other = (torch.rand((b, 3, size, size), generator=generator) * 255 for b in (2, 3))
        with torch.no_grad():
            found = module(other)
            expected = [each.numpy() for each in (found if isinstance(found, tuple) else (found,))]
        for exporter in (_export_traced, _export_dynamo):
            try:
                with warnings.catch_warnings(), torch.no_grad():
                    warnings.simplefilter("ignore")
                    encoded = exporter(module, example, outputs)
                got = load_session(encoded, name=name).run(list(outputs), {INPUT: other.numpy()})
            except Exception as error:  # each exporter has its own errors; the next one may do it
                reasons.append(first_line(error))
                continue
            pairs = list(zip(got, expected, strict=True))
            if all(one.shape == two.shape and _distance(one, two) <= TOLERANCE for one, two in pairs):
                return encoded
            reasons.append("the exported graph computes something else")
    finally:
        module.to(device).train(training)
    raise RecurError(
        f"{name}: cannot be written as ONNX ({'; '.join(reasons)}); pip install onnxscript, or use another model"
    )


def _export_traced(module: nn.Module, example: Tensor, outputs: Sequence[str]) -> bytes:
    """The older exporter: smaller graphs, in a tenth of the time, and nothing but `onnx` to install."""
    file: Any = io.BytesIO()  # not in the signature, but written to
    axes = {name: {0: "B"} for name in (INPUT, *outputs)}
    options: dict[str, Any] = {"dynamo": False, "opset_version": 17, "dynamic_axes": axes}
    torch.onnx.export(module, (example,), file, input_names=[INPUT], output_names=list(outputs), **options)
    return cast(bytes, file.getvalue())


def _export_dynamo(module: nn.Module, example: Tensor, outputs: Sequence[str]) -> bytes:
    """The newer exporter, for operators that the older one lacks. It needs `onnxscript`."""
    options: dict[str, Any] = {"dynamo": True, "verbose": False, "dynamic_shapes": ({0: torch.export.Dim("B")},)}
    program = torch.onnx.export(module, (example,), input_names=[INPUT], output_names=list(outputs), **options)
    assert program is not None
    encoded: bytes = program.model_proto.SerializeToString()
    return encoded


def _distance(got: NDArray[Any], expected: NDArray[Any]) -> float:
    """Largest difference, as a part of the largest value."""
    return float(np.abs(got - expected).max() / max(float(np.abs(expected).max()), 1e-6))
