; Memory of stores: what loops keep of each of their trips. See stores.py.
; A store is two words: the address of its rows (null where there is no memory), and their number.
; The state of a run is five words: its status, the threads that it may use, then the list of the
; blocks that it has taken and not freed: their addresses, how many there are, how many fit.
; In front of its rows, a block has {HEADER} bytes, of which the first eight hold its capacity.
;
; Large blocks that are freed are kept for the next run, the oldest first, up to {LIMIT} bytes. Runs
; hold no GIL: whoever finds the lock taken does without.

@lock = internal global i32 0
@count = internal global i64 0
@held = internal global i64 0
@blocks = internal global [{SLOTS} x ptr] zeroinitializer

declare ptr @diffc_realloc(ptr, i64)
declare void @diffc_free(ptr)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)
declare { i64, i1 } @llvm.umul.with.overflow.i64(i64, i64)

define internal void @fail(ptr %state, i64 %code) {
  %before = atomicrmw umax ptr %state, i64 %code monotonic, align 8
  ret void
}

; --- blocks, by the address of their rows

define internal i64 @capacity(ptr %rows) alwaysinline {
  %block = getelementptr i8, ptr %rows, i64 -{HEADER}
  %bytes = load i64, ptr %block
  ret i64 %bytes
}

; As C's realloc, to or from null too.
define internal ptr @system(ptr %rows, i64 %bytes) {
entry:
  %is_new = icmp eq ptr %rows, null
  %front = getelementptr i8, ptr %rows, i64 -{HEADER}
  %old = select i1 %is_new, ptr null, ptr %front
  %total = add i64 %bytes, {HEADER}
  %new = call ptr @diffc_realloc(ptr %old, i64 %total)
  %is_none = icmp eq ptr %new, null
  br i1 %is_none, label %none, label %made
made:
  store i64 %bytes, ptr %new
  %data = getelementptr i8, ptr %new, i64 {HEADER}
  ret ptr %data
none:
  ret ptr null
}

define internal void @release(ptr %rows) {
  %block = getelementptr i8, ptr %rows, i64 -{HEADER}
  call void @diffc_free(ptr %block)
  ret void
}

; Whether the lock was free; it is taken then.
define internal i1 @try_lock() alwaysinline {
  %pair = cmpxchg ptr @lock, i32 0, i32 1 acquire monotonic
  %is_ours = extractvalue { i32, i1 } %pair, 1
  ret i1 %is_ours
}

define internal void @unlock() alwaysinline {
  store atomic i32 0, ptr @lock release, align 4
  ret void
}

; Takes a kept block out of the array; under the lock.
define internal ptr @pick(i64 %k) {
  %at = getelementptr ptr, ptr @blocks, i64 %k
  %rows = load ptr, ptr %at
  %bytes = call i64 @capacity(ptr %rows)
  %held = load i64, ptr @held
  %less = sub i64 %held, %bytes
  store i64 %less, ptr @held
  %count = load i64, ptr @count
  %last = sub i64 %count, 1
  store i64 %last, ptr @count
  %moved = sub i64 %last, %k
  %size = shl i64 %moved, 3
  %next = getelementptr ptr, ptr %at, i64 1
  call void @llvm.memmove.p0.p0.i64(ptr %at, ptr %next, i64 %size, i1 false)
  ret ptr %rows
}

; The largest kept block, if it has so many bytes; null where there is none.
define internal ptr @reuse(i64 %bytes) {
entry:
  %is_ours = call i1 @try_lock()
  br i1 %is_ours, label %search, label %none
search:
  %count = load i64, ptr @count
  br label %loop
loop:
  %k = phi i64 [0, %search], [%k1, %one]
  %best = phi i64 [-1, %search], [%better, %one]
  %most = phi i64 [%bytes, %search], [%more, %one]
  %is_next = icmp ult i64 %k, %count
  br i1 %is_next, label %one, label %end
one:
  %at = getelementptr ptr, ptr @blocks, i64 %k
  %rows = load ptr, ptr %at
  %size = call i64 @capacity(ptr %rows)
  %fits = icmp uge i64 %size, %most
  %better = select i1 %fits, i64 %k, i64 %best
  %more = select i1 %fits, i64 %size, i64 %most
  %k1 = add i64 %k, 1
  br label %loop
end:
  %is_found = icmp sge i64 %best, 0
  br i1 %is_found, label %found, label %missed
found:
  %given = call ptr @pick(i64 %best)
  call void @unlock()
  ret ptr %given
missed:
  call void @unlock()
  ret ptr null
none:
  ret ptr null
}

; Frees a block, or keeps it.
define internal void @give(ptr %rows) {
entry:
  %bytes = call i64 @capacity(ptr %rows)
  %is_small = icmp ult i64 %bytes, {LARGE}
  %is_huge = icmp ugt i64 %bytes, {LIMIT}
  %passes = or i1 %is_small, %is_huge
  br i1 %passes, label %free, label %ask
ask:
  %is_ours = call i1 @try_lock()
  br i1 %is_ours, label %room, label %free
room:
  %held = load i64, ptr @held
  %count = load i64, ptr @count
  %total = add i64 %held, %bytes
  %is_over = icmp ugt i64 %total, {LIMIT}
  %is_full = icmp eq i64 %count, {SLOTS}
  %is_too_much = or i1 %is_over, %is_full
  br i1 %is_too_much, label %oldest, label %append
oldest:
  %dropped = call ptr @pick(i64 0)
  call void @release(ptr %dropped)
  br label %room
append:
  %at = getelementptr ptr, ptr @blocks, i64 %count
  store ptr %rows, ptr %at
  %more = add i64 %count, 1
  store i64 %more, ptr @count
  store i64 %total, ptr @held
  call void @unlock()
  ret void
free:
  call void @release(ptr %rows)
  ret void
}

; Gives kept blocks back to the system; says how many bytes that were.
define i64 @diffc_store_trim() {
entry:
  %is_ours = call i1 @try_lock()
  br i1 %is_ours, label %start, label %none
start:
  %before = load i64, ptr @held
  br label %loop
loop:
  %count = load i64, ptr @count
  %is_done = icmp eq i64 %count, 0
  br i1 %is_done, label %done, label %one
one:
  %rows = call ptr @pick(i64 0)
  call void @release(ptr %rows)
  br label %loop
done:
  call void @unlock()
  ret i64 %before
none:
  ret i64 0
}

; --- stores

; Gives a store room for so many bytes, or more. Says how many; 0 where there is no memory, and then
; it stays as it is.
define i64 @diffc_store_grow(ptr %store, i64 %bytes) {
entry:
  %old = load ptr, ptr %store
  %is_new = icmp eq ptr %old, null
  %is_large = icmp uge i64 %bytes, {LARGE}
  br i1 %is_large, label %look, label %ask
look:
  %kept = call ptr @reuse(i64 %bytes)
  %is_kept = icmp ne ptr %kept, null
  br i1 %is_kept, label %found, label %ask
found:
  br i1 %is_new, label %made, label %move
move:
  %used = call i64 @capacity(ptr %old)
  call void @llvm.memcpy.p0.p0.i64(ptr %kept, ptr %old, i64 %used, i1 false)
  call void @give(ptr %old)
  br label %made
ask:
  %grown = call ptr @system(ptr %old, i64 %bytes)
  %is_none = icmp eq ptr %grown, null
  br i1 %is_none, label %none, label %made
made:
  %rows = phi ptr [%kept, %found], [%kept, %move], [%grown, %ask]
  store ptr %rows, ptr %store
  %room = call i64 @capacity(ptr %rows)
  ret i64 %room
none:
  ret i64 0
}

; Room for a number of rows; false, with the status set, where there is no memory.
define i1 @diffc_store_make(ptr %state, ptr %store, i64 %rows, i64 %row, i64 %code) {
  %product = call { i64, i1 } @llvm.umul.with.overflow.i64(i64 %rows, i64 %row)
  %bytes = extractvalue { i64, i1 } %product, 0
  %is_over = extractvalue { i64, i1 } %product, 1
  br i1 %is_over, label %failed, label %known
known:
  %is_none = icmp eq i64 %bytes, 0
  br i1 %is_none, label %fine, label %take
take:
  %room = call i64 @diffc_store_grow(ptr %store, i64 %bytes)
  %is_made = icmp ne i64 %room, 0
  br i1 %is_made, label %fine, label %failed
fine:
  ret i1 true
failed:
  call void @fail(ptr %state, i64 %code)
  ret i1 false
}

; Notes a block in the list; where that has no memory, frees it and gives null, with the status set.
define internal ptr @note(ptr %state, ptr %block, i64 %code) {
entry:
  %list_at = getelementptr i8, ptr %state, i64 {LIST}
  %count_at = getelementptr i8, ptr %state, i64 {COUNT}
  %room_at = getelementptr i8, ptr %state, i64 {ROOM}
  %count = load i64, ptr %count_at
  %room = load i64, ptr %room_at
  %is_full = icmp eq i64 %count, %room
  br i1 %is_full, label %grow, label %append
grow:
  %twice = shl i64 %room, 1
  %more = add i64 %twice, 16
  %bytes = shl i64 %more, 3
  %old = load ptr, ptr %list_at
  %new = call ptr @diffc_realloc(ptr %old, i64 %bytes)
  %is_none = icmp eq ptr %new, null
  br i1 %is_none, label %failed, label %grown
grown:
  store ptr %new, ptr %list_at
  store i64 %more, ptr %room_at
  br label %append
append:
  %list = load ptr, ptr %list_at
  %at = getelementptr ptr, ptr %list, i64 %count
  store ptr %block, ptr %at
  %next = add i64 %count, 1
  store i64 %next, ptr %count_at
  ret ptr %block
failed:
  call void @give(ptr %block)
  call void @fail(ptr %state, i64 %code)
  ret ptr null
}

; Ends the growth of a store: it has so many rows of so many bytes. A small block gives back what it
; doesn't need.
define void @diffc_store_keep(ptr %state, ptr %store, i64 %rows, i64 %row, i64 %code) {
entry:
  %rows_at = getelementptr i8, ptr %store, i64 {ROWS}
  store i64 %rows, ptr %rows_at
  %bytes = mul i64 %rows, %row
  %block = load ptr, ptr %store
  %is_bare = icmp eq ptr %block, null
  br i1 %is_bare, label %done, label %some
some:
  %is_empty = icmp eq i64 %bytes, 0
  br i1 %is_empty, label %drop, label %full
drop:
  call void @give(ptr %block)
  store ptr null, ptr %store
  br label %done
full:
  %room = call i64 @capacity(ptr %block)
  %is_small = icmp ult i64 %room, {LARGE}
  br i1 %is_small, label %shrink, label %keep
shrink:
  %less = call ptr @system(ptr %block, i64 %bytes)
  %has_failed = icmp eq ptr %less, null
  %shrunk = select i1 %has_failed, ptr %block, ptr %less
  br label %keep
keep:
  %final = phi ptr [%block, %full], [%shrunk, %shrink]
  %noted = call ptr @note(ptr %state, ptr %final, i64 %code)
  store ptr %noted, ptr %store
  br label %done
done:
  ret void
}

; Frees the blocks that were taken since there were so many.
define void @diffc_store_release(ptr %state, i64 %mark) {
  %list_at = getelementptr i8, ptr %state, i64 {LIST}
  %count_at = getelementptr i8, ptr %state, i64 {COUNT}
  %list = load ptr, ptr %list_at
  %count = load i64, ptr %count_at
  call void @free_from(ptr %list, i64 %mark, i64 %count)
  store i64 %mark, ptr %count_at
  ret void
}

; Frees the blocks of a list, and the list.
define void @diffc_store_drop(ptr %list, i64 %count) {
  call void @free_from(ptr %list, i64 0, i64 %count)
  call void @diffc_free(ptr %list)
  ret void
}

define internal void @free_from(ptr %list, i64 %start, i64 %count) {
entry:
  br label %loop
loop:
  %k = phi i64 [%start, %entry], [%k1, %one]
  %more = icmp ult i64 %k, %count
  br i1 %more, label %one, label %done
one:
  %at = getelementptr ptr, ptr %list, i64 %k
  %block = load ptr, ptr %at
  call void @give(ptr %block)
  %k1 = add i64 %k, 1
  br label %loop
done:
  ret void
}
