; The entry's view of Python objects, its checks of arguments, and the overlap of operands.
; Names in braces are words of the plan and offsets of objects: see entry_code.py.

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
declare ptr @diffc_PyDataMem_SetHandler(ptr)
declare ptr @diffc_PyArray_NewFromDescr(ptr, ptr, i32, ptr, ptr, ptr, i32, ptr)
declare i64 @llvm.vector.reduce.add.v8i64(<8 x i64>)

define internal ptr @word_at(ptr %base, i64 %word) alwaysinline {
  %at = getelementptr i64, ptr %base, i64 %word
  ret ptr %at
}

define internal i64 @word(ptr %base, i64 %word) alwaysinline {
  %at = getelementptr i64, ptr %base, i64 %word
  %value = load i64, ptr %at
  ret i64 %value
}

define internal ptr @pointer(ptr %base, i64 %word) alwaysinline {
  %at = getelementptr i64, ptr %base, i64 %word
  %value = load ptr, ptr %at
  ret ptr %value
}

define internal ptr @field(ptr %object, i64 %offset) alwaysinline {
  %at = getelementptr i8, ptr %object, i64 %offset
  %value = load ptr, ptr %at
  ret ptr %value
}

define internal i64 @size(ptr %object) alwaysinline {
  %at = getelementptr i8, ptr %object, i64 {SIZE}
  %value = load i64, ptr %at
  ret i64 %value
}

define internal void @acquire(ptr %object) alwaysinline {
  %count = load i64, ptr %object
  %more = add i64 %count, 1
  store i64 %more, ptr %object
  ret void
}

define internal void @release(ptr %object) alwaysinline {
  %low = load i32, ptr %object
  %is_last = icmp eq i32 %low, 1
  br i1 %is_last, label %free, label %keep, !prof !1
keep:
  %count = load i64, ptr %object
  %less = sub i64 %count, 1
  store i64 %less, ptr %object
  ret void
free:
  call void @Py_DecRef(ptr %object)
  ret void
}

; Releases the first %count references of a list; null ones are passed over.
define internal void @release_all(ptr %list, i64 %count) noinline {
entry:
  br label %loop
loop:
  %k = phi i64 [0, %entry], [%k1, %next]
  %more = icmp ult i64 %k, %count
  br i1 %more, label %one, label %done
one:
  %object = call ptr @pointer(ptr %list, i64 %k)
  %is_null = icmp eq ptr %object, null
  br i1 %is_null, label %next, label %drop
drop:
  call void @release(ptr %object)
  br label %next
next:
  %k1 = add i64 %k, 1
  br label %loop
done:
  ret void
}

; The object that a check looks at, borrowed; null when it is not there.
define internal ptr @fetch(ptr %check, ptr %args, ptr %containers) alwaysinline {
  %from = call i64 @word(ptr %check, i64 {FETCH})
  %source = call i64 @word(ptr %check, i64 {SOURCE})
  %place = call i64 @word(ptr %check, i64 {PLACE})
  switch i64 %from, label %constant [
    i64 {fetch_argument}, label %argument
    i64 {fetch_tuple}, label %tuple
    i64 {fetch_list}, label %list
    i64 {fetch_dict}, label %dict
  ]
argument:
  %a = call ptr @pointer(ptr %args, i64 %source)
  ret ptr %a
tuple:
  %row = call ptr @pointer(ptr %containers, i64 %source)
  %row_items = getelementptr i8, ptr %row, i64 {TUPLE_ITEMS}
  %b = call ptr @pointer(ptr %row_items, i64 %place)
  ret ptr %b
list:
  %items_of = call ptr @pointer(ptr %containers, i64 %source)
  %now = call i64 @size(ptr %items_of)
  %is_there = icmp ult i64 %place, %now
  br i1 %is_there, label %item, label %nothing, !prof !0
item:
  %items = call ptr @field(ptr %items_of, i64 {LIST_ITEMS})
  %c = call ptr @pointer(ptr %items, i64 %place)
  ret ptr %c
dict:
  %table = call ptr @pointer(ptr %containers, i64 %source)
  %key = inttoptr i64 %place to ptr
  %d = call ptr @PyDict_GetItemWithError(ptr %table, ptr %key)
  ret ptr %d
constant:
  %e = inttoptr i64 %place to ptr
  ret ptr %e
nothing:
  ret ptr null
}

; Whether an object is an array as expected.
define internal i1 @is_array(ptr %object, ptr %type, ptr %expected) alwaysinline {
  %found = call ptr @field(ptr %object, i64 {TYPE})
  %is_type = icmp eq ptr %found, %type
  br i1 %is_type, label %array, label %no, !prof !0
array:
  %descr = call ptr @field(ptr %object, i64 {ARRAY_DESCR})
  %descr_wanted = call ptr @pointer(ptr %expected, i64 {DESCR})
  %is_dtype = icmp eq ptr %descr, %descr_wanted
  %ndim_at = getelementptr i8, ptr %object, i64 {ARRAY_NDIM}
  %ndim = load i32, ptr %ndim_at
  %flags_at = getelementptr i8, ptr %object, i64 {ARRAY_FLAGS}
  %flags = load i32, ptr %flags_at
  %both = call i64 @word(ptr %expected, i64 {NDIM_FLAGS})
  %ndim_wanted = trunc i64 %both to i32
  %high = lshr i64 %both, 32
  %mask = trunc i64 %high to i32
  %is_ndim = icmp eq i32 %ndim, %ndim_wanted
  %masked = and i32 %flags, %mask
  %has_flags = icmp eq i32 %masked, %mask
  %ok0 = and i1 %is_dtype, %is_ndim
  %ok1 = and i1 %ok0, %has_flags
  br i1 %ok1, label %shape, label %no, !prof !0
shape:
  %dims = call ptr @field(ptr %object, i64 {ARRAY_DIMS})
  %dims_wanted = call ptr @word_at(ptr %expected, i64 {DIMS})
  %rank = zext i32 %ndim to i64
  br label %axis
axis:
  %k = phi i64 [0, %shape], [%k1, %compare]
  %more = icmp ult i64 %k, %rank
  br i1 %more, label %compare, label %yes
compare:
  %dim = call i64 @word(ptr %dims, i64 %k)
  %dim_wanted = call i64 @word(ptr %dims_wanted, i64 %k)
  %k1 = add i64 %k, 1
  %is_equal = icmp eq i64 %dim, %dim_wanted
  br i1 %is_equal, label %axis, label %no, !prof !0
yes:
  ret i1 true
no:
  ret i1 false
}

; Whether written memory overlaps nothing, for few operands: one comparison after the other.
define internal i1 @is_apart_few(ptr %plan, ptr %inputs) alwaysinline {
entry:
  %written = call ptr @pointer(ptr %plan, i64 {WRITTEN})
  %count = call i64 @word(ptr %plan, i64 {WRITTEN_COUNT})
  %sizes = call ptr @pointer(ptr %plan, i64 {SIZES})
  %operands = call i64 @word(ptr %plan, i64 {OPERAND_COUNT})
  br label %each
each:
  %k = phi i64 [0, %entry], [%k1, %each_next]
  %hits0 = phi i64 [0, %entry], [%hits, %each_next]
  %this = call i64 @word(ptr %written, i64 %k)
  %low = call i64 @word(ptr %inputs, i64 %this)
  %size = call i64 @word(ptr %sizes, i64 %this)
  %high = add i64 %low, %size
  br label %against
against:
  %j = phi i64 [0, %each], [%j1, %against]
  %hits1 = phi i64 [%hits0, %each], [%hits, %against]
  %start = call i64 @word(ptr %inputs, i64 %j)
  %length = call i64 @word(ptr %sizes, i64 %j)
  %end = add i64 %start, %length
  %below = icmp ult i64 %start, %high
  %above = icmp ugt i64 %end, %low
  %both = and i1 %below, %above
  %one = zext i1 %both to i64
  %hits = add i64 %hits1, %one
  %j1 = add i64 %j, 1
  %more = icmp ult i64 %j1, %operands
  br i1 %more, label %against, label %each_next
each_next:
  %k1 = add i64 %k, 1
  %again = icmp ult i64 %k1, %count
  br i1 %again, label %each, label %counted
counted:
  %is_self = icmp eq i64 %hits, %count
  ret i1 %is_self
}

; The same for many operands: eight operands at a time are compared with each written
; one, and overlaps counted; each written operand overlaps itself once (empty ones are not listed).
define internal i1 @is_apart_many(ptr %plan, ptr %inputs) noinline {
entry:
  %written = call ptr @pointer(ptr %plan, i64 {WRITTEN})
  %count = call i64 @word(ptr %plan, i64 {WRITTEN_COUNT})
  %sizes = call ptr @pointer(ptr %plan, i64 {SIZES})
  %slots = call i64 @word(ptr %plan, i64 {SLOTS})
  br label %each
each:
  %k = phi i64 [0, %entry], [%k1, %each_next]
  %hits0 = phi <8 x i64> [zeroinitializer, %entry], [%hits, %each_next]
  %this = call i64 @word(ptr %written, i64 %k)
  %start = call i64 @word(ptr %inputs, i64 %this)
  %size = call i64 @word(ptr %sizes, i64 %this)
  %end = add i64 %start, %size
  %low0 = insertelement <8 x i64> poison, i64 %start, i32 0
  %low = shufflevector <8 x i64> %low0, <8 x i64> poison, <8 x i32> zeroinitializer
  %high0 = insertelement <8 x i64> poison, i64 %end, i32 0
  %high = shufflevector <8 x i64> %high0, <8 x i64> poison, <8 x i32> zeroinitializer
  br label %against
against:
  %j = phi i64 [0, %each], [%j1, %against]
  %hits1 = phi <8 x i64> [%hits0, %each], [%hits, %against]
  %starts_at = call ptr @word_at(ptr %inputs, i64 %j)
  %starts = load <8 x i64>, ptr %starts_at, align 8
  %sizes_at = call ptr @word_at(ptr %sizes, i64 %j)
  %lengths = load <8 x i64>, ptr %sizes_at, align 8
  %ends = add <8 x i64> %starts, %lengths
  %below = icmp ult <8 x i64> %starts, %high
  %above = icmp ugt <8 x i64> %ends, %low
  %both = and <8 x i1> %below, %above
  %ones = zext <8 x i1> %both to <8 x i64>
  %hits = add <8 x i64> %hits1, %ones
  %j1 = add i64 %j, 8
  %more = icmp ult i64 %j1, %slots
  br i1 %more, label %against, label %each_next
each_next:
  %k1 = add i64 %k, 1
  %again = icmp ult i64 %k1, %count
  br i1 %again, label %each, label %counted
counted:
  %total = call i64 @llvm.vector.reduce.add.v8i64(<8 x i64> %hits)
  %is_self = icmp eq i64 %total, %count
  ret i1 %is_self
}
