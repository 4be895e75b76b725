; The entry itself, and how it gets arenas and outputs, raises, and builds the result.
; Names in braces are words of the plan and offsets of objects: see entry_code.py.

; Pops an arena; null when all are in use. Owns it.
define internal ptr @take_arena(ptr %pool) alwaysinline {
  %size_at = getelementptr i8, ptr %pool, i64 {SIZE}
  %size = load i64, ptr %size_at
  %is_empty = icmp eq i64 %size, 0
  br i1 %is_empty, label %none, label %some, !prof !1
some:
  %last = sub i64 %size, 1
  store i64 %last, ptr %size_at
  %items = call ptr @field(ptr %pool, i64 {LIST_ITEMS})
  %arena = call ptr @pointer(ptr %items, i64 %last)
  ret ptr %arena
none:
  ret ptr null
}

; Appends an arena again; where that fails, it is freed.
define internal void @give_arena(ptr %pool, ptr %arena) alwaysinline {
  %is_none = icmp eq ptr %arena, null
  br i1 %is_none, label %done, label %some
some:
  %code = call i32 @PyList_Append(ptr %pool, ptr %arena)
  call void @release(ptr %arena)
  %has_failed = icmp ne i32 %code, 0
  br i1 %has_failed, label %clear, label %done, !prof !1
clear:
  call void @PyErr_Clear()
  br label %done
done:
  ret void
}

; Allocates the outputs that are no input's memory, and notes all addresses. Gives how many words of
; %fresh are filled, and whether all is there.
define internal i1 @make_outputs(ptr %plan, ptr %inputs, ptr %addresses, ptr %fresh) alwaysinline {
entry:
  %outputs = call ptr @pointer(ptr %plan, i64 {OUTPUTS})
  %count = call i64 @word(ptr %plan, i64 {OUTPUT_COUNT})
  %type = call ptr @pointer(ptr %plan, i64 {ARRAY_TYPE})
  br label %loop
loop:
  %k = phi i64 [0, %entry], [%k1, %next]
  %more = icmp ult i64 %k, %count
  br i1 %more, label %one, label %yes
one:
  %offset = mul i64 %k, {OUTPUT_WORDS}
  %out = call ptr @word_at(ptr %outputs, i64 %offset)
  %fresh_at = call ptr @word_at(ptr %fresh, i64 %k)
  %alias = call i64 @word(ptr %out, i64 {OUT_ALIAS})
  %is_fresh = icmp slt i64 %alias, 0
  br i1 %is_fresh, label %make, label %aliased
aliased:
  store ptr null, ptr %fresh_at
  %memory = call ptr @pointer(ptr %inputs, i64 %alias)
  br label %next
make:
  %descr = call ptr @pointer(ptr %out, i64 {OUT_DESCR})
  %ndim0 = call i64 @word(ptr %out, i64 {OUT_NDIM})
  %ndim = trunc i64 %ndim0 to i32
  %dims = call ptr @pointer(ptr %out, i64 {OUT_DIMS})
  call void @Py_IncRef(ptr %descr)
  %array = call ptr @diffc_PyArray_NewFromDescr(
    ptr %type, ptr %descr, i32 %ndim, ptr %dims, ptr null, ptr null, i32 0, ptr null)
  store ptr %array, ptr %fresh_at
  %has_failed = icmp eq ptr %array, null
  br i1 %has_failed, label %no, label %made, !prof !1
made:
  %data = call ptr @field(ptr %array, i64 {ARRAY_DATA})
  br label %next
next:
  %address = phi ptr [%memory, %aliased], [%data, %made]
  %address_at = call ptr @word_at(ptr %addresses, i64 %k)
  store ptr %address, ptr %address_at
  %k1 = add i64 %k, 1
  br label %loop
yes:
  ret i1 true
no:
  call void @release_all(ptr %fresh, i64 %k)
  ret i1 false
}

; The same, with the memory of large outputs from their own allocator.
define internal i1 @make_large_outputs(ptr %plan, ptr %inputs, ptr %addresses, ptr %fresh) {
  %ours = call ptr @pointer(ptr %plan, i64 {ALLOCATOR})
  %before = call ptr @diffc_PyDataMem_SetHandler(ptr %ours)
  %is_made = call i1 @make_outputs(ptr %plan, ptr %inputs, ptr %addresses, ptr %fresh)
  %is_set = icmp ne ptr %before, null
  br i1 %is_set, label %reset, label %failed, !prof !0
reset:
  %after = call ptr @diffc_PyDataMem_SetHandler(ptr %before)
  call void @Py_DecRef(ptr %after)
  call void @Py_DecRef(ptr %before)
  ret i1 %is_made
failed:
  ; The outputs came from NumPy's own allocator.
  br i1 %is_made, label %clear, label %done
clear:
  call void @PyErr_Clear()
  br label %done
done:
  ret i1 %is_made
}

; Builds the result from a stack of owned references; null, with an exception, when memory is short.
define internal ptr @build(ptr %plan, ptr %leaves, ptr %fresh, ptr %stack) alwaysinline {
entry:
  %results = call ptr @pointer(ptr %plan, i64 {RESULTS})
  %count = call i64 @word(ptr %plan, i64 {RESULT_COUNT})
  br label %loop
loop:
  %k = phi i64 [0, %entry], [%k1, %push]
  %depth = phi i64 [0, %entry], [%depth1, %push]
  %more = icmp ult i64 %k, %count
  br i1 %more, label %one, label %done
one:
  %offset = mul i64 %k, {RESULT_WORDS}
  %result = call ptr @word_at(ptr %results, i64 %offset)
  %code = call i64 @word(ptr %result, i64 {CODE})
  %argument = call i64 @word(ptr %result, i64 {ARGUMENT})
  switch i64 %code, label %make_dict [
    i64 {result_fresh}, label %is_fresh
    i64 {result_moved}, label %is_moved
    i64 {result_alias}, label %is_alias
    i64 {result_none}, label %is_none
    i64 {result_tuple}, label %make_tuple
    i64 {result_list}, label %make_list
  ]
is_fresh:
  %new = call ptr @pointer(ptr %fresh, i64 %argument)
  call void @acquire(ptr %new)
  br label %push
is_moved:
  %moved_at = call ptr @word_at(ptr %fresh, i64 %argument)
  %moved = load ptr, ptr %moved_at
  store ptr null, ptr %moved_at
  br label %push
is_alias:
  %old = call ptr @pointer(ptr %leaves, i64 %argument)
  call void @acquire(ptr %old)
  br label %push
is_none:
  %none = call ptr @pointer(ptr %plan, i64 {NONE})
  call void @Py_IncRef(ptr %none)
  br label %push
make_tuple:
  %tuple = call ptr @PyTuple_New(i64 %argument)
  %tuple_fails = icmp eq ptr %tuple, null
  br i1 %tuple_fails, label %fail, label %tuple_made, !prof !1
tuple_made:
  %tuple_items = getelementptr i8, ptr %tuple, i64 {TUPLE_ITEMS}
  br label %fill
make_list:
  %list = call ptr @PyList_New(i64 %argument)
  %list_fails = icmp eq ptr %list, null
  br i1 %list_fails, label %fail, label %list_made, !prof !1
list_made:
  %list_items = call ptr @field(ptr %list, i64 {LIST_ITEMS})
  br label %fill
fill:
  %box = phi ptr [%tuple, %tuple_made], [%list, %list_made]
  %items = phi ptr [%tuple_items, %tuple_made], [%list_items, %list_made]
  %box_base = sub i64 %depth, %argument
  br label %fill_loop
fill_loop:
  %f = phi i64 [0, %fill], [%f1, %fill_one]
  %fill_more = icmp ult i64 %f, %argument
  br i1 %fill_more, label %fill_one, label %push
fill_one:
  %fill_from = add i64 %box_base, %f
  %item = call ptr @pointer(ptr %stack, i64 %fill_from)
  %item_at = call ptr @word_at(ptr %items, i64 %f)
  store ptr %item, ptr %item_at
  %f1 = add i64 %f, 1
  br label %fill_loop
make_dict:
  %keys = call ptr @pointer(ptr %result, i64 {KEYS})
  %dict = call ptr @PyDict_New()
  %dict_fails = icmp eq ptr %dict, null
  br i1 %dict_fails, label %fail, label %dict_made, !prof !1
dict_made:
  %dict_base = sub i64 %depth, %argument
  br label %dict_loop
dict_loop:
  %d = phi i64 [0, %dict_made], [%d1, %dict_next]
  %dict_more = icmp ult i64 %d, %argument
  br i1 %dict_more, label %dict_one, label %dict_full
dict_one:
  %dict_from = add i64 %dict_base, %d
  %value = call ptr @pointer(ptr %stack, i64 %dict_from)
  %key = call ptr @pointer(ptr %keys, i64 %d)
  %set = call i32 @PyDict_SetItem(ptr %dict, ptr %key, ptr %value)
  %set_fails = icmp ne i32 %set, 0
  br i1 %set_fails, label %dict_drop, label %dict_next, !prof !1
dict_next:
  %d1 = add i64 %d, 1
  br label %dict_loop
dict_full:
  %values = call ptr @word_at(ptr %stack, i64 %dict_base)
  call void @drop_all(ptr %values, i64 %argument)
  br label %push
dict_drop:
  call void @Py_DecRef(ptr %dict)
  br label %fail
push:
  %value_of = phi ptr [%new, %is_fresh], [%moved, %is_moved], [%old, %is_alias], [%none, %is_none],
                      [%box, %fill_loop], [%dict, %dict_full]
  %popped = phi i64 [0, %is_fresh], [0, %is_moved], [0, %is_alias], [0, %is_none],
                    [%argument, %fill_loop], [%argument, %dict_full]
  %top = sub i64 %depth, %popped
  %top_at = call ptr @word_at(ptr %stack, i64 %top)
  store ptr %value_of, ptr %top_at
  %depth1 = add i64 %top, 1
  %k1 = add i64 %k, 1
  br label %loop
done:
  %whole = load ptr, ptr %stack
  ret ptr %whole
fail:
  call void @drop_all(ptr %stack, i64 %depth)
  ret ptr null
}

; Releases references to objects of any kind.
define internal void @drop_all(ptr %list, i64 %count) noinline {
entry:
  br label %loop
loop:
  %k = phi i64 [0, %entry], [%k1, %one]
  %more = icmp ult i64 %k, %count
  br i1 %more, label %one, label %done
one:
  %object = call ptr @pointer(ptr %list, i64 %k)
  call void @Py_DecRef(ptr %object)
  %k1 = add i64 %k, 1
  br label %loop
done:
  ret void
}

; Raises what a status stands for; always null.
define internal ptr @raise(ptr %plan, i64 %status) noinline cold {
  %method = call ptr @pointer(ptr %plan, i64 {RAISE})
  %number = call ptr @PyLong_FromLongLong(i64 %status)
  %has_failed = icmp eq ptr %number, null
  br i1 %has_failed, label %done, label %ask
ask:
  %list = alloca ptr
  store ptr %number, ptr %list
  %result = call ptr @PyObject_Vectorcall(ptr %method, ptr %list, i64 1, ptr null)
  call void @Py_DecRef(ptr %number)
  ret ptr %result
done:
  ret ptr null
}

define ptr @diffc_entry(ptr %self, ptr %args, i64 %nargs, ptr %kw) nounwind {
entry:
  %overflow = alloca i32
  %plan = call ptr @field(ptr %self, i64 {ARRAY_DATA})
  %wanted = call i64 @word(ptr %plan, i64 {NARGS})
  %is_count = icmp eq i64 %nargs, %wanted
  %is_positional = icmp eq ptr %kw, null
  %is_call = and i1 %is_count, %is_positional
  br i1 %is_call, label %begin, label %slow, !prof !0
begin:
  %words = call i64 @word(ptr %plan, i64 {SCRATCH_WORDS})
  %inputs = alloca i64, i64 %words, align 64
  %leaves_at = call i64 @word(ptr %plan, i64 {LEAVES_AT})
  %leaves = call ptr @word_at(ptr %inputs, i64 %leaves_at)
  %scalars_at = call i64 @word(ptr %plan, i64 {SCALARS_AT})
  %scalars = call ptr @word_at(ptr %inputs, i64 %scalars_at)
  %addresses_at = call i64 @word(ptr %plan, i64 {ADDRESSES_AT})
  %addresses = call ptr @word_at(ptr %inputs, i64 %addresses_at)
  %fresh_at = call i64 @word(ptr %plan, i64 {FRESH_AT})
  %fresh = call ptr @word_at(ptr %inputs, i64 %fresh_at)
  %containers_at = call i64 @word(ptr %plan, i64 {CONTAINERS_AT})
  %containers = call ptr @word_at(ptr %inputs, i64 %containers_at)
  %held_at = call i64 @word(ptr %plan, i64 {HELD_AT})
  %held = call ptr @word_at(ptr %inputs, i64 %held_at)
  %stack_at = call i64 @word(ptr %plan, i64 {STACK_AT})
  %stack = call ptr @word_at(ptr %inputs, i64 %stack_at)
  %slots = call i64 @word(ptr %plan, i64 {SLOTS})
  %last_vector = sub i64 %slots, 8
  %padding = call ptr @word_at(ptr %inputs, i64 %last_vector)
  store <8 x i64> zeroinitializer, ptr %padding, align 8
  %array_type = call ptr @pointer(ptr %plan, i64 {ARRAY_TYPE})
  %checks = call ptr @pointer(ptr %plan, i64 {CHECKS})
  %check_count = call i64 @word(ptr %plan, i64 {CHECK_COUNT})
  br label %check_loop

check_loop:
  %k = phi i64 [0, %begin], [%k1, %next]
  %owned = phi i64 [0, %begin], [%owned1, %next]
  %more = icmp ult i64 %k, %check_count
  br i1 %more, label %check_one, label %checked
check_one:
  %offset = mul i64 %k, {CHECK_WORDS}
  %check = call ptr @word_at(ptr %checks, i64 %offset)
  %object = call ptr @fetch(ptr %check, ptr %args, ptr %containers)
  %is_nothing = icmp eq ptr %object, null
  br i1 %is_nothing, label %miss, label %fetched, !prof !1
fetched:
  %kind = call i64 @word(ptr %check, i64 {KIND})
  %expected = call ptr @pointer(ptr %check, i64 {EXPECTED})
  %index = call i64 @word(ptr %check, i64 {INDEX})
  %scalar = call ptr @word_at(ptr %scalars, i64 %index)
  switch i64 %kind, label %check_container [
    i64 {kind_array}, label %check_array
    i64 {kind_none}, label %check_none
    i64 {kind_float}, label %check_float
    i64 {kind_int}, label %check_int
    i64 {kind_bool}, label %check_bool
  ]
check_array:
  %is_right = call i1 @is_array(ptr %object, ptr %array_type, ptr %expected)
  br i1 %is_right, label %array, label %miss, !prof !0
array:
  %leaf_at = call ptr @word_at(ptr %leaves, i64 %index)
  store ptr %object, ptr %leaf_at
  %data = call ptr @field(ptr %object, i64 {ARRAY_DATA})
  %input_at = call ptr @word_at(ptr %inputs, i64 %index)
  store ptr %data, ptr %input_at
  br label %own
check_none:
  %none = call ptr @pointer(ptr %plan, i64 {NONE})
  %is_none = icmp eq ptr %object, %none
  br i1 %is_none, label %next, label %miss, !prof !0
check_float:
  %float_type = call ptr @field(ptr %object, i64 {TYPE})
  %is_float = icmp eq ptr %float_type, %expected
  br i1 %is_float, label %float, label %miss, !prof !0
float:
  %float_at = getelementptr i8, ptr %object, i64 {FLOAT_VALUE}
  %float_value = load i64, ptr %float_at
  br label %scalar_done
check_int:
  %int_type = call ptr @field(ptr %object, i64 {TYPE})
  %is_int = icmp eq ptr %int_type, %expected
  br i1 %is_int, label %int, label %miss, !prof !0
int:
  %int_value = call i64 @PyLong_AsLongLongAndOverflow(ptr %object, ptr %overflow)
  %beyond = load i32, ptr %overflow
  %fits = icmp eq i32 %beyond, 0
  br i1 %fits, label %scalar_done, label %miss, !prof !0
check_bool:
  %true = call ptr @pointer(ptr %plan, i64 {TRUE})
  %false = call ptr @pointer(ptr %plan, i64 {FALSE})
  %is_true = icmp eq ptr %object, %true
  %is_false = icmp eq ptr %object, %false
  %is_bool = or i1 %is_true, %is_false
  %bool_value = zext i1 %is_true to i64
  br i1 %is_bool, label %scalar_done, label %miss, !prof !0
scalar_done:
  %scalar_value = phi i64 [%float_value, %float], [%int_value, %int], [%bool_value, %check_bool]
  store i64 %scalar_value, ptr %scalar
  %scalar_input = call ptr @word_at(ptr %inputs, i64 %index)
  store ptr %scalar, ptr %scalar_input
  br label %next
check_container:
  %container_type = call ptr @field(ptr %object, i64 {TYPE})
  %is_container = icmp eq ptr %container_type, %expected
  br i1 %is_container, label %sized, label %miss, !prof !0
sized:
  %length = call i64 @size(ptr %object)
  %length_wanted = call i64 @word(ptr %check, i64 {LENGTH})
  %is_length = icmp eq i64 %length, %length_wanted
  br i1 %is_length, label %container, label %miss, !prof !0
container:
  %container_at = call ptr @word_at(ptr %containers, i64 %index)
  store ptr %object, ptr %container_at
  br label %own
own:
  %is_owned = call i64 @word(ptr %check, i64 {OWNED})
  %to_own = icmp ne i64 %is_owned, 0
  br i1 %to_own, label %hold, label %next
hold:
  call void @acquire(ptr %object)
  %hold_at = call ptr @word_at(ptr %held, i64 %owned)
  store ptr %object, ptr %hold_at
  br label %next
next:
  %one_more = phi i64 [0, %check_none], [0, %scalar_done], [0, %own], [1, %hold]
  %owned1 = add i64 %owned, %one_more
  %k1 = add i64 %k, 1
  br label %check_loop

checked:
  %written_count = call i64 @word(ptr %plan, i64 {WRITTEN_COUNT})
  %writes = icmp ne i64 %written_count, 0
  br i1 %writes, label %compare, label %compared
compare:
  %is_small = icmp eq i64 %slots, {LANES}
  br i1 %is_small, label %compare_few, label %compare_many
compare_few:
  %is_few_apart = call i1 @is_apart_few(ptr %plan, ptr %inputs)
  br i1 %is_few_apart, label %compared, label %miss, !prof !0
compare_many:
  %is_many_apart = call i1 @is_apart_many(ptr %plan, ptr %inputs)
  br i1 %is_many_apart, label %compared, label %miss, !prof !0
compared:
  %pool = call ptr @pointer(ptr %plan, i64 {POOL})
  %needs_arena = icmp ne ptr %pool, null
  br i1 %needs_arena, label %take, label %allocate
take:
  %taken = call ptr @take_arena(ptr %pool)
  %is_used_up = icmp eq ptr %taken, null
  br i1 %is_used_up, label %miss, label %took, !prof !1
took:
  %taken_data = call ptr @field(ptr %taken, i64 {ARRAY_DATA})
  br label %allocate
allocate:
  %arena = phi ptr [null, %compared], [%taken, %took]
  %memory = phi ptr [null, %compared], [%taken_data, %took]
  %has_large = call i64 @word(ptr %plan, i64 {ALLOCATOR})
  %all_small = icmp eq i64 %has_large, 0
  br i1 %all_small, label %allocate_small, label %allocate_large
allocate_small:
  %small_made = call i1 @make_outputs(ptr %plan, ptr %inputs, ptr %addresses, ptr %fresh)
  br label %allocated
allocate_large:
  %large_made = call i1 @make_large_outputs(ptr %plan, ptr %inputs, ptr %addresses, ptr %fresh)
  br label %allocated
allocated:
  %is_made = phi i1 [%small_made, %allocate_small], [%large_made, %allocate_large]
  br i1 %is_made, label %run, label %no_memory, !prof !0

run:
  %program = call ptr @pointer(ptr %plan, i64 {PROGRAM})
  %threads = call i64 @word(ptr %plan, i64 {THREADS})
  %releases = call i64 @word(ptr %plan, i64 {RELEASES})
  %is_long = icmp ne i64 %releases, 0
  br i1 %is_long, label %run_long, label %run_short
run_short:
  %status_short = call i64 %program(ptr %inputs, ptr %addresses, ptr %memory, i64 %threads)
  br label %ran
run_long:
  %thread = call ptr @PyEval_SaveThread()
  %status_long = call i64 %program(ptr %inputs, ptr %addresses, ptr %memory, i64 %threads)
  call void @PyEval_RestoreThread(ptr %thread)
  br label %ran
ran:
  %status = phi i64 [%status_short, %run_short], [%status_long, %run_long]
  call void @give_arena(ptr %pool, ptr %arena)
  %is_fine = icmp eq i64 %status, 0
  br i1 %is_fine, label %answer, label %failed, !prof !0
answer:
  %result = call ptr @build(ptr %plan, ptr %leaves, ptr %fresh, ptr %stack)
  %fresh_count = call i64 @word(ptr %plan, i64 {OUTPUT_COUNT})
  call void @release_all(ptr %fresh, i64 %fresh_count)
  call void @release_all(ptr %held, i64 %owned)
  ret ptr %result

failed:
  %failed_count = call i64 @word(ptr %plan, i64 {OUTPUT_COUNT})
  call void @release_all(ptr %fresh, i64 %failed_count)
  call void @release_all(ptr %held, i64 %owned)
  %raised = call ptr @raise(ptr %plan, i64 %status)
  ret ptr %raised
no_memory:
  ; The list has room for the arena, so that appending it does not touch the MemoryError.
  call void @give_arena(ptr %pool, ptr %arena)
  call void @release_all(ptr %held, i64 %owned)
  ret ptr null
miss:
  call void @release_all(ptr %held, i64 %owned)
  call void @PyErr_Clear()
  br label %slow
slow:
  %slow_path = call ptr @pointer(ptr %plan, i64 {SLOW})
  %slow_result = call ptr @PyObject_Vectorcall(ptr %slow_path, ptr %args, i64 %nargs, ptr %kw)
  ret ptr %slow_result
}

!0 = !{!"branch_weights", i32 2000, i32 1}
!1 = !{!"branch_weights", i32 1, i32 2000}
