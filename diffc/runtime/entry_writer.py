"""Text of one emitted function, piece by piece: values, guards, and what is owned so far."""

from collections.abc import Sequence

from diffc.runtime import abi

__all__ = ["PRELUDE", "Writer"]

PRELUDE = """\
declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare ptr @PyObject_Vectorcall(ptr, ptr, i64, ptr)
declare ptr @PyTuple_New(i64)
declare ptr @PyList_New(i64)
declare i32 @PyList_Append(ptr, ptr)
declare ptr @PyDict_New()
declare i32 @PyDict_SetItem(ptr, ptr, ptr)
declare ptr @PyDict_GetItemWithError(ptr, ptr)
declare i64 @PyLong_AsLongLongAndOverflow(ptr, ptr)
declare ptr @PyLong_FromLongLong(i64)
declare void @PyErr_Clear()
declare ptr @diffc_PyArray_NewFromDescr(ptr, ptr, i32, ptr, ptr, ptr, i32, ptr)
declare i64 @diffc_program(ptr, ptr, ptr)
declare i64 @llvm.vector.reduce.add.v8i64(<8 x i64>)
@table = external constant ptr

define internal void @release(ptr %array) nounwind {
  %count = load i32, ptr %array
  %last = icmp eq i32 %count, 1
  br i1 %last, label %free, label %keep, !prof !1
keep:
  %whole = load i64, ptr %array
  %less = sub i64 %whole, 1
  store i64 %less, ptr %array
  ret void
free:
  call void @Py_DecRef(ptr %array)
  ret void
}

!0 = !{!"branch_weights", i32 2000, i32 1}
!1 = !{!"branch_weights", i32 1, i32 2000}
!2 = !{}
"""


class Writer:
    """Collects the lines of the entry.

    Attributes:
        objects: The objects of this process that the text refers to; `@table` holds their addresses
            in this order.
        held: The values that are owned at this point of the text, and whether each is an array. A
            guard that fails here leaves to `slowN`, where the N values are dropped again.
    """

    def __init__(self) -> None:
        self.objects: list[object] = []
        self.lines: list[str] = []
        self.allocas: list[str] = []
        self.globals: list[str] = []
        self.held: list[tuple[str, bool]] = []
        self._index: dict[int, int] = {}
        self._count = 0

    def line(self, text: str) -> None:
        """Adds one instruction."""
        self.lines.append("  " + text)

    def value(self, text: str) -> str:
        """Adds an instruction, and names its result."""
        self._count += 1
        self.line(f"%v{self._count} = {text}")
        return f"%v{self._count}"

    def label(self, label: str) -> None:
        """Begins a block."""
        self.lines.append(f"{label}:")

    def fresh(self, stem: str) -> str:
        """A label that is not used yet."""
        self._count += 1
        return f"{stem}{self._count}"

    def load(self, base: str, offset: int, kind: str = "ptr") -> str:
        """Loads from `offset` bytes after `base`."""
        if offset:
            base = self.value(f"getelementptr i8, ptr {base}, i64 {offset}")
        return self.value(f"load {kind}, ptr {base}")

    def alloca(self, kind: str) -> str:
        """A slot on the stack."""
        self._count += 1
        self.allocas.append(f"  %s{self._count} = alloca {kind}, align 8")
        return f"%s{self._count}"

    def object(self, thing: object) -> str:
        """The address of an object of this process."""
        place = self._index.get(id(thing))
        if place is None:
            place = self._index[id(thing)] = len(self.objects)
            self.objects.append(thing)
        return self.value(
            f"load ptr, ptr getelementptr (i8, ptr @table, i64 {8 * place}), !invariant.load !2"
        )

    def all(self, conditions: Sequence[str]) -> str:
        """Whether all conditions hold, without a branch."""
        whole = conditions[0]
        for condition in conditions[1:]:
            whole = self.value(f"and i1 {whole}, {condition}")
        return whole

    def need(self, condition: str) -> None:
        """Leaves to the slow path, owning what is owned by now, unless `condition`."""
        ok = self.fresh("ok")
        miss = f"slow{len(self.held)}"
        self.line(f"br i1 {condition}, label %{ok}, label %{miss}, !prof !0")
        self.label(ok)

    def need_type(self, thing: str, kind: type) -> None:
        """Leaves unless the object is exactly of this type."""
        found = self.load(thing, abi.TYPE)
        self.need(self.value(f"icmp eq ptr {found}, {self.object(kind)}"))

    def hold(self, thing: str, is_array: bool) -> None:
        """Owns an object; `is_array` says that it cannot be immortal."""
        if is_array:
            count = self.value(f"load i64, ptr {thing}")
            self.line(f"store i64 {self.value(f'add i64 {count}, 1')}, ptr {thing}")
        else:
            self.line(f"call void @Py_IncRef(ptr {thing})")
        self.held.append((thing, is_array))

    def drop(self, thing: str, is_array: bool) -> None:
        """Releases one reference."""
        self.line(f"call void @{'release' if is_array else 'Py_DecRef'}(ptr {thing})")

    def put(self, base: str, index: int, value: str) -> None:
        """Stores a pointer into an array of pointers."""
        place = base
        if index:
            place = self.value(f"getelementptr i8, ptr {base}, i64 {8 * index}")
        self.line(f"store ptr {value}, ptr {place}")

    def drop_held(self) -> None:
        """Releases all that is owned; what follows must not leave through a guard."""
        for thing, is_array in reversed(self.held):
            self.drop(thing, is_array)
