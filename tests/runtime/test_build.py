import ctypes
import gc
import subprocess
import sys
import weakref

import pytest

from diffc.codegen.targets import X86_AVX512, X86_SSE2
from diffc.errors import InternalError
from diffc.runtime import llvm
from diffc.runtime.build import assembly, build, object_key
from diffc.runtime.cache import ObjectCache
from diffc.runtime.target import host

ANSWER = "define i64 @answer() {\n  ret i64 %d\n}\n"


def call(library, symbol="answer"):
    return ctypes.CFUNCTYPE(ctypes.c_int64)(library.address(symbol))()


def test_importing_the_runtime_loads_no_llvm():
    code = (
        "import sys, diffc.runtime.build, diffc.runtime.entry, diffc.runtime.target\n"
        "assert not [name for name in sys.modules if name.startswith('llvmlite')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_build_gives_the_addresses_asked_for():
    text = ANSWER % 42 + "define i64 @other() {\n  ret i64 -7\n}\n"
    library = build(text, ("answer", "other"), host())
    assert call(library) == 42
    assert call(library, "other") == -7
    with pytest.raises(KeyError):
        library.address("third")


def test_equal_text_is_one_library_while_it_lives():
    first = build(ANSWER % 5, ("answer",), host())
    assert build(ANSWER % 5, ("answer",), host()) is first
    gone = weakref.ref(first)
    del first
    gc.collect()
    assert gone() is None
    assert call(build(ANSWER % 5, ("answer",), host())) == 5


def test_equal_text_with_other_imports_is_another_library():
    @ctypes.CFUNCTYPE(ctypes.c_int64)
    def one():
        return 1

    @ctypes.CFUNCTYPE(ctypes.c_int64)
    def two():
        return 2

    text = "declare i64 @far()\ndefine i64 @answer() {\n %r = call i64 @far()\n ret i64 %r\n}\n"
    addresses = [ctypes.cast(f, ctypes.c_void_p).value for f in (one, two)]
    libraries = [build(text, ("answer",), host(), {"far": address}) for address in addresses]
    assert [call(library) for library in libraries] == [1, 2]


def test_imported_data_is_reached():
    cell = ctypes.c_int64(99)
    text = (
        "@cell = external global i64\n"
        "define i64 @answer() {\n %r = load i64, ptr @cell\n ret i64 %r\n}\n"
    )
    library = build(text, ("answer",), host(), {"cell": ctypes.addressof(cell)})
    assert call(library) == 99
    cell.value = 100
    assert call(library) == 100


def test_rejected_text_is_an_internal_error_that_quotes_llvm():
    with pytest.raises(InternalError, match="expected value token"):
        build("define i64 @answer() {\n  ret i64 %%\n}\n", ("answer",), host())
    with pytest.raises(InternalError, match="does not dominate"):
        bad = "define i64 @f() {\n %a = add i64 %b, 1\n %b = add i64 %a, 1\n ret i64 %b\n}\n"
        build(bad, ("f",), host())


def test_undefined_symbols_are_internal_errors():
    text = "declare i64 @nowhere_at_all()\n"
    text += "define i64 @answer() {\n %r = call i64 @nowhere_at_all()\n ret i64 %r\n}\n"
    with pytest.raises(InternalError, match="cannot link"):
        build(text, ("answer",), host())
    with pytest.raises(InternalError, match="missing"):
        build(ANSWER % 1, ("missing",), host())


def test_always_inline_is_obeyed():
    text = (
        "define internal i64 @inner(i64 %x) alwaysinline {\n"
        " %r = mul i64 %x, 12345\n ret i64 %r\n}\n"
        "define i64 @answer(i64 %x) {\n %r = call i64 @inner(i64 %x)\n ret i64 %r\n}\n"
    )
    assert "12345" in assembly(text, host())
    assert "call" not in assembly(text, host())
    assert "call" in assembly(text.replace("alwaysinline", "noinline"), host())


def test_summations_keep_their_order():
    """A scalar sum stays one: nothing here may vectorize or reassociate it."""
    text = """
define double @sum(ptr noalias %p) {
entry:
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%n, %loop]
  %s = phi double [0.0, %entry], [%t, %loop]
  %q = getelementptr double, ptr %p, i64 %i
  %x = load double, ptr %q
  %t = fadd double %s, %x
  %n = add i64 %i, 1
  %m = icmp ult i64 %n, 1024
  br i1 %m, label %loop, label %done
done:
  ret double %t
}
"""
    library = build(text, ("sum",), host())
    values = (ctypes.c_double * 1024)(1e16, 1.0, -1e16, *[1.0] * 1021)
    function = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_void_p)(library.address("sum"))
    assert function(ctypes.addressof(values)) == 1021.0
    if host().family == "x86_64":
        assert "addsd" in assembly(text, host())
        assert "addpd" not in assembly(text, host())


@pytest.mark.skipif(host().family != "x86_64", reason="compares two x86 targets")
def test_the_target_decides_the_instructions():
    text = (
        "define void @twice(ptr %p) {\n %x = load <16 x float>, ptr %p, align 4\n"
        " %y = fadd <16 x float> %x, %x\n store <16 x float> %y, ptr %p, align 4\n ret void\n}\n"
    )
    wide = text.replace("@twice(ptr %p)", f"@twice(ptr %p) {X86_AVX512.attributes}")
    assert "zmm" in assembly(wide, X86_AVX512)
    assert "mm" in assembly(text, X86_SSE2)
    assert "ymm" not in assembly(text, X86_SSE2)
    assert object_key(text, X86_SSE2) != object_key(text, X86_AVX512)


def test_the_key_depends_on_the_text():
    assert object_key("a", host()) == object_key("a", host())
    assert object_key("a", host()) != object_key("b", host())


def test_a_second_process_would_not_compile(tmp_path, monkeypatch):
    text = ANSWER % 77
    library = build(text, ("answer",), host(), cache=ObjectCache(tmp_path))
    del library
    gc.collect()
    monkeypatch.setattr(llvm, "emit_object", None)
    assert call(build(text, ("answer",), host(), cache=ObjectCache(tmp_path))) == 77


def test_an_object_that_does_not_link_is_compiled_again(tmp_path):
    text = ANSWER % 78
    ObjectCache(tmp_path).put(object_key(text, host()), b"whole, but no object code")
    library = build(text, ("answer",), host(), cache=ObjectCache(tmp_path))
    assert call(library) == 78
    assert ObjectCache(tmp_path).get(library.key) != b"whole, but no object code"
