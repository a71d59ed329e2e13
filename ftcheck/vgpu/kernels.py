"""The kernels of the device: they allocate what CUDA's would allocate, and compute nothing.

They are registered below autograd and autocast (dispatch key `PrivateUse1`). What torch composes
of other operations for every device, it composes here too, in C++: most operations arrive as an
`empty` followed by an `out=` variant. Only operations with no such composition are asked for the
shape of their result, of torch's meta kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import torch

from ftcheck.allocator.categories import INPUTS, WEIGHTS, WORKSPACES
from ftcheck.vgpu.arguments import (
    cache_key,
    check_devices,
    contiguous_strides,
    layout_of,
    only_out,
    point_at,
    tensors_in,
    to_meta,
)
from ftcheck.vgpu.device import DEVICE_TYPE
from ftcheck.vgpu.errors import Unmeasured
from ftcheck.vgpu.record import Recorder
from ftcheck.vgpu.values import Values
from ftcheck.vgpu.workspaces import PRODUCTS, Workspaces

__all__ = ["Buffers", "Handler", "Kernels"]

Handler = Callable[[Sequence[Any], dict[str, Any]], Any]
Buffers = Callable[[Sequence[Any], dict[str, Any]], dict[str, int]]

_ATEN: Final = torch.ops.aten
_META_KEY: Final = torch._C.DispatchKey.Meta
_OWN_KERNELS_ON_CUDA: Final = (
    "native_layer_norm",
    "native_group_norm",
    "addr",
    "_stack",
    "all.dims",
    "any.dims",
    "silu_backward",
    "mish_backward",
    "_linalg_check_errors",
    "_foreach_norm.Scalar",
    "_fused_rms_norm",
)
"""Operations that torch composes for a device without a kernel, and that have a kernel on CUDA
(aten/src/ATen/native/native_functions.yaml; found by asking the dispatcher of torch 2.13)."""
_MAY_MIX: Final = frozenset(
    {
        "aten::index",
        "aten::_index_put_impl_",
        "aten::index_put_",
        "aten::copy_",
        "aten::_unsafe_index",
    }
)
"""Operations that CUDA lets take tensors of the host (indices) beside its own."""


class Kernels:
    """All kernels of the device, one handler an operation, made when it is first called.

    Args:
        recorder: Told of every storage.
        values: Contents of the few tensors that have them.
        workspaces: Told of every product.
    """

    def __init__(self, recorder: Recorder, values: Values, workspaces: Workspaces) -> None:
        self.recorder = recorder
        self.values = values
        self.workspaces = workspaces
        self.unmeasured: Unmeasured | None = None
        """The first operation that could not be run."""
        self._handlers: dict[Any, Handler] = {}
        self._after: dict[Any, list[Handler]] = {}
        self._shapes: dict[Any, Any] = {}
        self._libraries: list[torch.library.Library] = []
        self.special: dict[Any, Handler] = {
            _ATEN.empty.memory_format: self._empty,
            _ATEN.empty_strided.default: self._empty_strided,
            _ATEN._copy_from.default: self._copy_from,
            _ATEN._copy_from_and_resize.default: self._copy_from,
            _ATEN._local_scalar_dense.default: self._local_scalar_dense,
            _ATEN._pin_memory.default: lambda args, kwargs: args[0],
            _ATEN.is_pinned.default: lambda args, kwargs: False,
            _ATEN.equal.default: self._equal,
            _ATEN.record_stream.default: lambda args, kwargs: None,
            _ATEN.set_.source_Storage_storage_offset: self._relocate,
            _ATEN.set_.source_Tensor: self._relocate,
            _ATEN.set_.source_Storage: self._relocate,
            _ATEN.resize_.default: self._resize,
            _ATEN._linalg_check_errors.default: lambda args, kwargs: None,  # all went well
            _ATEN._amp_foreach_non_finite_check_and_unscale_.default: lambda args, kwargs: None,
        }

    def install(self) -> None:
        """Register with the dispatcher, for the rest of the process."""
        handlers, make = self._handlers, self._make

        def run(op: Any, *args: Any, **kwargs: Any) -> Any:
            handler = handlers.get(op)
            if handler is None:
                handler = handlers[op] = make(op)
            try:
                return handler(args, kwargs)
            except Unmeasured as error:  # somebody may swallow it, and go on where CUDA would not
                self.unmeasured = self.unmeasured or error
                raise

        everything = torch.library.Library("_", "IMPL")
        everything.fallback(run, "PrivateUse1")
        aten = torch.library.Library("aten", "IMPL")
        for name in _OWN_KERNELS_ON_CUDA:
            packet, _, overload = name.partition(".")
            op = getattr(getattr(_ATEN, packet), overload or "default")
            aten.impl(name, partial(run, op), "PrivateUse1")
        self._libraries += [everything, aten]

    def new(
        self, size: Sequence[int], stride: Sequence[int], dtype: torch.dtype, op: str
    ) -> torch.Tensor:
        """Allocate and record a tensor."""
        return self.recorder.allocate(size, stride, dtype, op)

    def functional(self, op: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run an operation whose results are new tensors."""
        return self._functional(op, op._schema.name, args, kwargs)

    def beside(self, op: Any, buffers: Buffers) -> None:
        """Let a kernel allocate what meta kernels do not show, and free it again.

        Args:
            op: What arrives here, such as an `out=` variant; a second time for buffers that come
                when those of the first are gone.
            buffers: Name and bytes of each buffer, by the arguments.
        """
        allocate, name = self.recorder.allocate, op._schema.name

        def take(args: Sequence[Any], kwargs: dict[str, Any]) -> None:
            taken = [
                allocate((size_bytes,), (1,), torch.uint8, f"{name} ({buffer})", WORKSPACES)
                for buffer, size_bytes in buffers(args, kwargs).items()
            ]
            del taken

        self._after.setdefault(op, []).append(take)

    # ------------------------------------------------------------------ choice of the handler

    def _make(self, op: Any) -> Handler:
        handler, after = self._choose(op), list(self._after.get(op, ()))
        if op._schema.name in PRODUCTS:  # the result is allocated first, then the workspace
            after.append(self.workspaces.product)
        if not after:
            return handler

        def run(args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
            result = handler(args, kwargs)
            for take in after:
                take(args, kwargs)
            return result

        return run

    def _choose(self, op: Any) -> Handler:
        if op in self.special:
            return self.special[op]
        schema = op._schema
        written = [
            position
            for position, argument in enumerate(schema.arguments)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        if written:
            return self._writer(op, written)
        if any(result.alias_info is not None for result in schema.returns):
            return partial(self._view, op)
        if not any("Tensor" in str(result.type) for result in schema.returns):
            return partial(self._query, op)
        return partial(self._functional, op, schema.name)

    def _writer(self, op: Any, written: list[int]) -> Handler:
        """In-place and `out=` operations: nothing is allocated, unless an output has no size."""
        schema, recorder, values = op._schema, self.recorder, self.values
        arguments = schema.arguments
        slots = [(position, arguments[position].name) for position in written]
        returned = len(schema.returns)
        name = schema.name
        mixes = name in _MAY_MIX

        def write(args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
            outputs = [
                args[position] if position < len(args) else kwargs[key] for position, key in slots
            ]
            if recorder.unnamed is not None:
                recorder.unnamed.op, recorder.unnamed = name, None
            if not mixes:
                check_devices((*args, *kwargs.values()))
            watched = False
            for output in outputs:
                if isinstance(output, torch.Tensor):
                    if output.numel() == 0:
                        self._size_output(op, args, kwargs, outputs)
                    watched = watched or values.may_have(output)
                else:
                    watched = watched or any(values.may_have(item) for item in output)
            if watched:
                self._write_values(op, args, kwargs, outputs)
            if returned == 0:
                return None
            return outputs[0] if returned == 1 else tuple(outputs[:returned])

        return write

    # ------------------------------------------------------------------------------- handlers

    def _empty(self, args: Sequence[Any], kwargs: dict[str, Any]) -> torch.Tensor:
        size = args[0]
        dtype = kwargs.get("dtype") or torch.get_default_dtype()
        if kwargs.get("memory_format") in (None, torch.contiguous_format):
            stride: Sequence[int] = contiguous_strides(size)
        else:
            stride = torch.empty(
                size, device="meta", memory_format=kwargs["memory_format"]
            ).stride()
        return self._unnamed(size, stride, dtype)

    def _empty_strided(self, args: Sequence[Any], kwargs: dict[str, Any]) -> torch.Tensor:
        dtype = kwargs.get("dtype") or torch.get_default_dtype()
        return self._unnamed(args[0], args[1], dtype)

    def _unnamed(
        self, size: Sequence[int], stride: Sequence[int], dtype: torch.dtype
    ) -> torch.Tensor:
        """`empty`, of a kernel that comes next and will put its name there."""
        recorder = self.recorder
        tensor = recorder.allocate(size, stride, dtype, "aten::empty")
        recorder.unnamed = recorder.newest
        return tensor

    def _copy_from(self, args: Sequence[Any], kwargs: dict[str, Any]) -> torch.Tensor:
        source, target = args[0], args[1]
        newest, self.recorder.unnamed = self.recorder.unnamed, None
        from_host = source.device.type != DEVICE_TYPE
        if newest is not None:
            newest.op = "aten::copy_"
            if from_host and newest is self.recorder.of(target):
                newest.category = WEIGHTS if isinstance(source, torch.nn.Parameter) else INPUTS
        if target.device.type == DEVICE_TYPE:
            if self.values.may_have(target):
                values = self.values
                known = None if source.device.type == "meta" else values.of(source)
                values.write(target, known, guessed=not from_host and values.is_guessed(source))
                if known is None:
                    self.values.guess(target, "aten::copy_")
        else:
            self._to_host(source, target)
        return target  # type: ignore[no-any-return]

    def _to_host(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """Contents for a copy to the host: the known ones, or 1; large ones stay untouched."""
        known = self.values.to_host(source)
        if known is not None:
            target.copy_(known)
        elif target.numel() <= 2**22:
            target.fill_(1)

    def _local_scalar_dense(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        return self.values.read(args[0], self.recorder.places.module())

    def _equal(self, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
        check_devices(args)
        known = self.values.compute(_ATEN.equal.default, args, kwargs)
        if known is None or self.values.rests_on_guess:
            self.values.asked("whether two tensors are equal")
        return True if known is None else bool(known)

    def _relocate(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """`set_`: the tensor now looks at another storage."""
        tensor, source = args[0], args[1]
        if isinstance(source, torch.Tensor):
            point_at(tensor, source, int(source.storage_offset()), source.shape, source.stride())
        elif len(args) > 2:
            point_at(tensor, source, *args[2:5])
        else:
            point_at(tensor, source, 0, (source.nbytes() // tensor.dtype.itemsize,), (1,))
        return tensor

    def _resize(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """`resize_`: a larger storage is a new one, as on CUDA."""
        tensor, size = args[0], tuple(args[1])
        elements = 1
        for length in size:
            elements *= length
        record = self.recorder.of(tensor)
        room = 0 if record is None else record.size_bytes // tensor.dtype.itemsize
        if tensor.storage_offset() + elements > room:
            self._move(tensor, size, contiguous_strides(size), "aten::resize_")
        else:
            point_at(tensor, tensor, tensor.storage_offset(), size, contiguous_strides(size))
        return tensor

    def _move(
        self, tensor: torch.Tensor, size: Sequence[int], stride: Sequence[int], op: str
    ) -> None:
        """Give a tensor a new storage."""
        fresh = self.recorder.allocate(size, stride, tensor.dtype, op)
        point_at(tensor, fresh, 0, size, stride)

    def _view(self, op: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        # Meta kernels of views move sizes and share the storage; they do not look at the device.
        return op._op_dk(_META_KEY, *args, **kwargs)

    def _query(self, op: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        known = self.values.compute(op, args, kwargs)
        if known is None:
            raise Unmeasured(op._schema.name, "it returns a value that the card would compute")
        return known

    def _functional(self, op: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        key = (op, cache_key(args), cache_key(tuple(kwargs.items())) if kwargs else None)
        result = self._shapes.get(key)
        if result is None:
            check_devices((*args, *kwargs.values()), indices=name in _MAY_MIX)
            result = self._infer(op, args, kwargs)
            if result is None:
                return self._by_value(op, name, args, kwargs)
            self._shapes[key] = result
        many, layouts = result
        outputs = [
            self.new(item[0], item[1], item[2], name) if isinstance(item, tuple) else item
            for item in layouts
        ]
        for output in outputs:
            if isinstance(output, torch.Tensor) and self.values.may_have(output):
                self._result_values(op, name, args, kwargs, outputs, many)
                break
        return tuple(outputs) if many == "tuple" else outputs if many else outputs[0]

    # ---------------------------------------------------------------------- shapes and values

    def _infer(self, op: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Layouts of the results, from torch's meta kernel; `None` where values decide."""
        if torch.Tag.dynamic_output_shape in op.tags:
            return None
        try:
            result = op(*to_meta(args), **{key: to_meta(item) for key, item in kwargs.items()})
        except NotImplementedError as error:
            raise Unmeasured(
                op._schema.name, f"torch {torch.__version__} does not know the shape of its result"
            ) from error
        if isinstance(result, torch.Tensor):
            return None if result.device.type != "meta" else ("", [layout_of(result)])
        many = "tuple" if isinstance(result, tuple) else "list"
        return many, [layout_of(item) for item in result]

    def _by_value(self, op: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """An operation whose result has a size that depends on contents."""
        known = self.values.compute(op, args, kwargs)
        guessed = self.values.rests_on_guess
        if known is None:
            raise Unmeasured(name, "the size of its result depends on values of the card")

        def move(value: torch.Tensor) -> torch.Tensor:
            tensor = self.new(value.shape, value.stride(), value.dtype, name)
            self.values.write(tensor, value, guessed=guessed)
            return tensor

        return move(known) if isinstance(known, torch.Tensor) else type(known)(map(move, known))

    def _size_output(
        self, op: Any, args: Sequence[Any], kwargs: dict[str, Any], outputs: list[Any]
    ) -> None:
        """An output of no elements: give it the size that the operation would."""
        metas: dict[int, torch.Tensor] = {}
        op(*to_meta(args, metas), **{key: to_meta(item, metas) for key, item in kwargs.items()})
        for output in outputs:
            meta = metas.get(id(output))
            if meta is not None and meta.numel() and not output.numel():
                self._move(output, meta.shape, meta.stride(), op._schema.name)

    def _write_values(
        self, op: Any, args: Sequence[Any], kwargs: dict[str, Any], outputs: list[Any]
    ) -> None:
        values = self.values
        flat = [item for output in outputs for item in tensors_in(output)]
        overwrites = [item for item in flat if values.of(item) is None]
        for item in overwrites:  # contents to write to; they stay only if the operation is known
            values.write(item, torch.zeros((), dtype=item.dtype).expand(item.shape))
        inputs_known = only_out(op) or not overwrites
        if inputs_known and values.compute(op, args, kwargs) is not None:
            if values.rests_on_guess:
                for item in flat:
                    values.write(item, values.of(item), guessed=True)
            return
        for item in flat:
            values.write(item, None)
            values.guess(item, op._schema.name)

    def _result_values(
        self,
        op: Any,
        name: str,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        outputs: list[Any],
        many: str,
    ) -> None:
        known = self.values.compute(op, args, kwargs)
        guessed = self.values.rests_on_guess
        results = [None] * len(outputs) if known is None else known if many else [known]
        for output, result in zip(outputs, results, strict=True):
            if isinstance(output, torch.Tensor) and self.values.may_have(output):
                self.values.write(output, result, guessed=guessed)
                if result is None:
                    self.values.guess(output, name)
