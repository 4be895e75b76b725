"""LLVM text of a native entry: a CPython function with checks, allocation, call and result.

The function goes through these steps; a miss in the first two leaves to the Python slow path with
the same arguments, so nothing may have been changed by then:

1. arguments: number, containers, arrays (type, dtype, dimensions, flags), Python scalars. What was
   reached through a container is owned from then on: another thread may change the container.
2. memory that is written must overlap no other operand; an arena is popped from the pool.
3. outputs are allocated, the program runs (without the GIL when it has much to do).
4. the arena goes back, a non-zero status is raised, containers of the result are built.

No address is a constant of the text: functions are imported symbols, and objects (dtypes, keys,
types, captured arrays) come from the imported array `@table`. So equal signatures give equal text.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from diffc.runtime import abi
from diffc.runtime.entry_overlap import check_overlap, padded
from diffc.runtime.entry_writer import PRELUDE, Writer

if TYPE_CHECKING:
    from diffc.runtime.executable import Executable

__all__ = ["EntryText"]

# Up to this many elements of work the GIL is kept: releasing it costs more than waiting.
GIL_WORK = 1 << 15


class EntryText(Writer):
    """Emits one entry.

    Args:
        name: Symbol of the emitted function.
        executable: The program's operands.
        args_spec: One spec per positional argument.
        out_spec: The spec of the result.
    """

    def __init__(
        self, name: str, executable: "Executable", args_spec: Sequence[Any], out_spec: Any
    ) -> None:
        super().__init__()
        self.name = name
        self.executable = executable
        self.args_spec = tuple(args_spec)
        self.out_spec = out_spec
        self._leaves: dict[int, str] = {}

    # The steps.

    def emit(self) -> str:
        """The text of the module."""
        executable = self.executable
        self._inputs = self.alloca(f"[{padded(len(executable.all_inputs))} x ptr]")
        self._outputs = self.alloca(f"[{max(1, len(executable.outputs))} x ptr]")
        self.need(self.value(f"icmp eq i64 %nargs, {len(self.args_spec)}"))
        self.need(self.value("icmp eq ptr %kw, null"))
        for position, spec in enumerate(self.args_spec):
            self._argument(self.load("%args", 8 * position), spec, False)
        for index, array in enumerate(executable.captured, len(executable.inputs)):
            self._array(self.object(array), index, False)
        check_overlap(self, executable, self._inputs)
        arena = self._take_arena()
        fresh = self._make_outputs(arena)
        status = self._call(arena)
        self._give_arena(arena)
        self._raise(status, list(fresh.values()))
        self._return(fresh)
        self._slow_exits()
        body = ["entry:", *self.allocas, *self.lines]
        return "\n".join(
            (
                PRELUDE,
                *self.globals,
                f"define ptr @{self.name}(ptr %self, ptr %args, i64 %nargs, ptr %kw) nounwind {{",
                *body,
                "}",
                "",
            )
        )

    def _argument(self, thing: str, spec: Any, is_inside: bool) -> None:
        """Checks one argument, or a part of one, against its spec."""
        if spec is None:
            self.need(self.value(f"icmp eq ptr {thing}, {self.object(None)}"))
        elif type(spec) is int:
            if self.executable.inputs[spec].kind == "array":
                self._array(thing, spec, is_inside)
            else:
                self._scalar(thing, spec)
        else:
            self._container(thing, spec, is_inside)

    def _container(self, thing: str, spec: Any, is_inside: bool) -> None:
        kind = type(spec)
        self.need_type(thing, kind)
        size = self.load(thing, abi.SIZE, "i64")
        self.need(self.value(f"icmp eq i64 {size}, {len(spec)}"))
        if is_inside and _has_dict(spec):
            # Looking up a key may run a foreign key's __eq__, which may drop this container.
            self.hold(thing, False)
        if kind is dict:
            for key, part in spec.items():
                found = self.value(
                    f"call ptr @PyDict_GetItemWithError(ptr {thing}, ptr {self.object(key)})"
                )
                self.need(self.value(f"icmp ne ptr {found}, null"))
                self._argument(found, part, True)
            return
        base, offset = thing, abi.TUPLE_ITEMS
        is_stale = kind is list
        for position, part in enumerate(spec):
            if is_stale:
                if position:
                    now = self.load(thing, abi.SIZE, "i64")
                    self.need(self.value(f"icmp eq i64 {now}, {len(spec)}"))
                base, offset = self.load(thing, abi.LIST_ITEMS), 0
            self._argument(self.load(base, offset + 8 * position), part, True)
            # The lookups of a dict may have changed the list.
            is_stale = kind is list and _has_dict(part)

    def _array(self, thing: str, index: int, is_inside: bool) -> None:
        spec = self.executable.all_inputs[index]
        self.need_type(thing, np.ndarray)
        descr = self.load(thing, abi.ARRAY_DESCR)
        ndim = self.load(thing, abi.ARRAY_NDIM, "i32")
        flags = self.load(thing, abi.ARRAY_FLAGS, "i32")
        mask = abi.C_CONTIGUOUS | abi.ALIGNED
        if index in self.executable.written:
            mask |= abi.WRITEABLE
        flags = self.value(f"and i32 {flags}, {mask}")
        self.need(
            self.all(
                [
                    self.value(f"icmp eq ptr {descr}, {self.object(_descr(spec.dtype))}"),
                    self.value(f"icmp eq i32 {ndim}, {len(spec.shape)}"),
                    self.value(f"icmp eq i32 {flags}, {mask}"),
                ]
            )
        )
        if spec.shape:
            dims = self.load(thing, abi.ARRAY_DIMS)
            self.need(
                self.all(
                    [
                        self.value(f"icmp eq i64 {self.load(dims, 8 * axis, 'i64')}, {size}")
                        for axis, size in enumerate(spec.shape)
                    ]
                )
            )
        if is_inside:
            self.hold(thing, True)
        self._leaves[index] = thing
        self.put(self._inputs, index, self.load(thing, abi.ARRAY_DATA))

    def _scalar(self, thing: str, index: int) -> None:
        kind = self.executable.inputs[index].kind
        place = self.alloca("i64")
        if kind == "float":
            self.need_type(thing, float)
            self.line(f"store double {self.load(thing, abi.FLOAT_VALUE, 'double')}, ptr {place}")
        elif kind == "int":
            self.need_type(thing, int)
            beyond = self.alloca("i32")
            value = self.value(f"call i64 @PyLong_AsLongLongAndOverflow(ptr {thing}, ptr {beyond})")
            self.need(self.value(f"icmp eq i32 {self.load(beyond, 0, 'i32')}, 0"))
            self.line(f"store i64 {value}, ptr {place}")
        else:
            is_true = self.value(f"icmp eq ptr {thing}, {self.object(True)}")
            is_false = self.value(f"icmp eq ptr {thing}, {self.object(False)}")
            self.need(self.value(f"or i1 {is_true}, {is_false}"))
            self.line(f"store i8 {self.value(f'zext i1 {is_true} to i8')}, ptr {place}")
        self.put(self._inputs, index, place)

    # Arena, outputs, call.

    def _take_arena(self) -> str | None:
        if not self.executable.arena_bytes:
            return None
        pool = self.object(self.executable.pool.free)
        place = self.value(f"getelementptr i8, ptr {pool}, i64 {abi.SIZE}")
        size = self.value(f"load i64, ptr {place}")
        self.need(self.value(f"icmp ne i64 {size}, 0"))
        last = self.value(f"sub i64 {size}, 1")
        self.line(f"store i64 {last}, ptr {place}")
        items = self.load(pool, abi.LIST_ITEMS)
        arena = self.value(
            "load ptr, ptr " + self.value(f"getelementptr ptr, ptr {items}, i64 {last}")
        )
        return arena

    def _give_arena(self, arena: str | None) -> None:
        if arena is None:
            return
        pool = self.object(self.executable.pool.free)
        code = self.value(f"call i32 @PyList_Append(ptr {pool}, ptr {arena})")
        self.line(f"call void @Py_DecRef(ptr {arena})")
        failed = self.value(f"icmp ne i32 {code}, 0")
        clear, done = self.fresh("clear"), self.fresh("given")
        self.line(f"br i1 {failed}, label %{clear}, label %{done}, !prof !1")
        self.label(clear)
        self.line("call void @PyErr_Clear()")
        self.line(f"br label %{done}")
        self.label(done)

    def _make_outputs(self, arena: str | None) -> dict[int, str]:
        """Allocates the outputs that alias no input; on failure everything is given back."""
        fresh: dict[int, str] = {}
        exits: list[tuple[str, list[str]]] = []
        for index, out in enumerate(self.executable.outputs):
            if out.alias is not None:
                self.put(self._outputs, index, self.load(self._inputs, 8 * out.alias))
                continue
            descr = self.object(_descr(out.dtype))
            self.line(f"call void @Py_IncRef(ptr {descr})")
            dims = "null"
            if out.shape:
                dims = f"@dims{index}"
                sizes = ", ".join(f"i64 {size}" for size in out.shape)
                self.globals.append(
                    f"{dims} = internal constant [{len(out.shape)} x i64] [{sizes}]"
                )
            array = self.value(
                f"call ptr @{abi.NEW_FROM_DESCR}(ptr {self.object(np.ndarray)}, ptr {descr}, "
                f"i32 {len(out.shape)}, ptr {dims}, ptr null, ptr null, i32 0, ptr null)"
            )
            failed = self.value(f"icmp eq ptr {array}, null")
            ok, miss = self.fresh("made"), f"unmake{index}"
            self.line(f"br i1 {failed}, label %{miss}, label %{ok}, !prof !1")
            exits.append((miss, list(fresh.values())[-1:]))
            self.label(ok)
            fresh[index] = array
            self.put(self._outputs, index, self.load(array, abi.ARRAY_DATA))
        after = self.fresh("allocated")
        self.line(f"br label %{after}")
        self._unmake(exits, arena)
        self.label(after)
        return fresh

    def _unmake(self, exits: Sequence[tuple[str, list[str]]], arena: str | None) -> None:
        """Where allocation failed: a chain that drops the outputs made before, last first."""
        for place in range(len(exits) - 1, -1, -1):
            label, before = exits[place]
            self.label(label)
            for array in before:
                self.drop(array, True)
            if place:
                self.line(f"br label %{exits[place - 1][0]}")
        if exits:
            # Appending to the pool must not hide the MemoryError: the list has room by its size.
            if arena is not None:
                pool = self.object(self.executable.pool.free)
                self.value(f"call i32 @PyList_Append(ptr {pool}, ptr {arena})")
                self.line(f"call void @Py_DecRef(ptr {arena})")
            self.drop_held()
            self.line("ret ptr null")

    def _call(self, arena: str | None) -> str:
        scratch = "null" if arena is None else self.load(arena, abi.ARRAY_DATA)
        call = f"call i64 @diffc_program(ptr {self._inputs}, ptr {self._outputs}, ptr {scratch})"
        if self.executable.work <= GIL_WORK:
            return self.value(call)
        thread = self.value("call ptr @PyEval_SaveThread()")
        status = self.value(call)
        self.line(f"call void @PyEval_RestoreThread(ptr {thread})")
        return status

    def _raise(self, status: str, fresh: Sequence[str]) -> None:
        """Turns a non-zero status into the exception that it stands for."""
        if not self.executable.messages:
            return
        failed = self.value(f"icmp ne i64 {status}, 0")
        self.line(f"br i1 {failed}, label %failed, label %ran, !prof !1")
        self.label("failed")
        for array in fresh:
            self.drop(array, True)
        self.drop_held()
        number = self.value(f"call ptr @PyLong_FromLongLong(i64 {status})")
        none = self.value(f"icmp eq ptr {number}, null")
        self.line(f"br i1 {none}, label %failed_twice, label %raise, !prof !1")
        self.label("failed_twice")
        self.line("ret ptr null")
        self.label("raise")
        place = self.alloca("ptr")
        self.line(f"store ptr {number}, ptr {place}")
        method = self.object(self.executable.raise_status)
        result = self.value(
            f"call ptr @PyObject_Vectorcall(ptr {method}, ptr {place}, i64 1, ptr null)"
        )
        self.line(f"call void @Py_DecRef(ptr {number})")
        self.line(f"ret ptr {result}")
        self.label("ran")

    # The result.

    def _return(self, fresh: dict[int, str]) -> None:
        """Builds the result; the containers are all made before the first is filled."""
        made: list[str] = []
        containers: dict[int, str] = {}
        exits: list[str] = []
        for position, spec in enumerate(_containers(self.out_spec)):
            thing = self.value(f"call ptr {_maker(spec)}")
            failed = self.value(f"icmp eq ptr {thing}, null")
            ok = self.fresh("box")
            self.line(f"br i1 {failed}, label %unbox{position}, label %{ok}, !prof !1")
            exits.append(f"unbox{position}")
            self.label(ok)
            made.append(thing)
            containers[position] = thing
        unused = dict(fresh)
        self._codes: list[str] = []
        order = iter(range(len(made)))
        result = self._result(self.out_spec, unused, fresh, containers, order)
        for left in unused.values():
            self.drop(left, True)
        self.drop_held()
        if self._codes:
            total = self._codes[0]
            for code in self._codes[1:]:
                total = self.value(f"or i32 {total}, {code}")
            failed = self.value(f"icmp ne i32 {total}, 0")
            self.line(f"br i1 {failed}, label %unfilled, label %filled, !prof !1")
            self.label("unfilled")
            self.line(f"call void @Py_DecRef(ptr {result})")
            self.line("ret ptr null")
            self.label("filled")
        self.line(f"ret ptr {result}")
        for position in range(len(exits) - 1, -1, -1):
            self.label(exits[position])
            if position:
                self.line(f"call void @Py_DecRef(ptr {made[position - 1]})")
                self.line(f"br label %{exits[position - 1]}")
        if exits:
            for array in fresh.values():
                self.drop(array, True)
            self.drop_held()
            self.line("ret ptr null")

    def _result(
        self,
        spec: Any,
        unused: dict[int, str],
        fresh: dict[int, str],
        containers: dict[int, str],
        order: Iterator[int],
    ) -> str:
        """An owned reference to the value of `spec`."""
        if spec is None:
            none = self.object(None)
            self.line(f"call void @Py_IncRef(ptr {none})")
            return none
        if type(spec) is int:
            if spec in unused:
                return unused.pop(spec)
            alias = self.executable.outputs[spec].alias
            thing = fresh[spec] if alias is None else self._leaves[alias]
            self.line(f"call void @Py_IncRef(ptr {thing})")
            return thing
        box = containers[next(order)]
        if type(spec) is dict:
            for key, part in spec.items():
                value = self._result(part, unused, fresh, containers, order)
                key_object = self.object(key)
                code = self.value(
                    f"call i32 @PyDict_SetItem(ptr {box}, ptr {key_object}, ptr {value})"
                )
                self._codes.append(code)
                self.line(f"call void @Py_DecRef(ptr {value})")
            return box
        if len(spec):
            items = (
                self.load(box, abi.LIST_ITEMS)
                if type(spec) is list
                else self.value(f"getelementptr i8, ptr {box}, i64 {abi.TUPLE_ITEMS}")
            )
            for position, part in enumerate(spec):
                value = self._result(part, unused, fresh, containers, order)
                place = self.value(f"getelementptr i8, ptr {items}, i64 {8 * position}")
                self.line(f"store ptr {value}, ptr {place}")
        return box

    def _slow_exits(self) -> None:
        """A chain: each entrance drops one more of what is owned, the last one calls Python."""
        for count in range(len(self.held), 0, -1):
            self.label(f"slow{count}")
            self.drop(*self.held[count - 1])
            self.line(f"br label %slow{count - 1}")
        self.label("slow0")
        self.line("call void @PyErr_Clear()")
        result = self.value(
            "tail call ptr @PyObject_Vectorcall(ptr %self, ptr %args, i64 %nargs, ptr %kw)"
        )
        self.line(f"ret ptr {result}")


def _descr(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype object that arrays of this dtype usually share."""
    return np.dtype(dtype.str)


def _maker(spec: Any) -> str:
    """The call that makes the empty container of a result."""
    if type(spec) is dict:
        return "@PyDict_New()"
    return f"@{'PyList_New' if type(spec) is list else 'PyTuple_New'}(i64 {len(spec)})"


def _containers(spec: Any) -> list[Any]:
    """The containers of a result in the order in which `_result` meets them."""
    if spec is None or type(spec) is int:
        return []
    parts = spec.values() if type(spec) is dict else spec
    return [spec, *(box for part in parts for box in _containers(part))]


def _has_dict(spec: Any) -> bool:
    return any(type(box) is dict for box in _containers(spec))
