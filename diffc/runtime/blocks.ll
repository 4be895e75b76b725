; Memory of large outputs: freed blocks are kept for the next output of their size. See blocks.py.
; A block starts with {HEADER} bytes, of which the first eight hold its capacity; data follow.
; All of this runs under the GIL. Kept blocks stand in two arrays, the oldest first.

@count = internal global i64 0
@held = internal global i64 0
@blocks = internal global [{SLOTS} x ptr] zeroinitializer
@sizes = internal global [{SLOTS} x i64] zeroinitializer

declare i32 @posix_memalign(ptr, i64, i64)
declare void @free(ptr)
declare i32 @madvise(ptr, i64, i32)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare i64 @llvm.umin.i64(i64, i64)

; Takes a kept block out of the arrays; the caller owns it.
define internal ptr @take(i64 %k) {
  %block_at = getelementptr ptr, ptr @blocks, i64 %k
  %size_at = getelementptr i64, ptr @sizes, i64 %k
  %block = load ptr, ptr %block_at
  %size = load i64, ptr %size_at
  %held = load i64, ptr @held
  %less = sub i64 %held, %size
  store i64 %less, ptr @held
  %count = load i64, ptr @count
  %last = sub i64 %count, 1
  store i64 %last, ptr @count
  %moved = sub i64 %last, %k
  %bytes = shl i64 %moved, 3
  %block_next = getelementptr ptr, ptr %block_at, i64 1
  %size_next = getelementptr i64, ptr %size_at, i64 1
  call void @llvm.memmove.p0.p0.i64(ptr %block_at, ptr %block_next, i64 %bytes, i1 0)
  call void @llvm.memmove.p0.p0.i64(ptr %size_at, ptr %size_next, i64 %bytes, i1 0)
  ret ptr %block
}

; Frees kept blocks, the oldest first, until at most %goal bytes are held. Gives how many went.
define i64 @diffc_blocks_trim(i64 %goal) {
entry:
  %before = load i64, ptr @held
  br label %test
test:
  %held = load i64, ptr @held
  %too_much = icmp ugt i64 %held, %goal
  br i1 %too_much, label %drop, label %done
drop:
  %block = call ptr @take(i64 0)
  call void @free(ptr %block)
  br label %test
done:
  %gone = sub i64 %before, %held
  ret i64 %gone
}

define i64 @diffc_blocks_held() {
  %held = load i64, ptr @held
  ret i64 %held
}

define internal ptr @system(i64 %capacity) {
  %slot = alloca ptr
  %total = add i64 %capacity, {HEADER}
  %code = call i32 @posix_memalign(ptr %slot, i64 {HEADER}, i64 %total)
  %is_fine = icmp eq i32 %code, 0
  br i1 %is_fine, label %made, label %none
made:
  %block = load ptr, ptr %slot
  store i64 %capacity, ptr %block
  %is_huge = icmp uge i64 %capacity, {HUGE_FROM}
  br i1 %is_huge, label %advise, label %done
advise:
  %address = ptrtoint ptr %block to i64
  %up = add i64 %address, 4095
  %page = and i64 %up, -4096
  %start = inttoptr i64 %page to ptr
  %length = sub i64 %capacity, 4096
  %advised = call i32 @madvise(ptr %start, i64 %length, i32 {HUGE_ADVICE})
  br label %done
done:
  ret ptr %block
none:
  ret ptr null
}

define ptr @diffc_blocks_malloc(ptr %context, i64 %size) {
entry:
  %is_small = icmp ult i64 %size, {POOLED_FROM}
  br i1 %is_small, label %new, label %search
search:
  %slack = lshr i64 %size, 3
  %most = add i64 %size, %slack
  %count = load i64, ptr @count
  br label %loop
loop:
  %left = phi i64 [%count, %search], [%k, %next]
  %is_over = icmp eq i64 %left, 0
  br i1 %is_over, label %new, label %one
one:
  %k = sub i64 %left, 1
  %size_at = getelementptr i64, ptr @sizes, i64 %k
  %known = load i64, ptr %size_at
  %enough = icmp uge i64 %known, %size
  %near = icmp ule i64 %known, %most
  %fits = and i1 %enough, %near
  br i1 %fits, label %found, label %next
next:
  br label %loop
found:
  %kept = call ptr @take(i64 %k)
  br label %give
new:
  %up = add i64 %size, 63
  %capacity = and i64 %up, -64
  %first = call ptr @system(i64 %capacity)
  %has_failed = icmp eq ptr %first, null
  br i1 %has_failed, label %again, label %give
again:
  %gone = call i64 @diffc_blocks_trim(i64 0)
  %second = call ptr @system(i64 %capacity)
  %is_none = icmp eq ptr %second, null
  br i1 %is_none, label %none, label %give
give:
  %block = phi ptr [%kept, %found], [%first, %new], [%second, %again]
  %data = getelementptr i8, ptr %block, i64 {HEADER}
  ret ptr %data
none:
  ret ptr null
}

define ptr @diffc_blocks_calloc(ptr %context, i64 %number, i64 %each) {
  %size = mul i64 %number, %each
  %data = call ptr @diffc_blocks_malloc(ptr %context, i64 %size)
  %is_none = icmp eq ptr %data, null
  br i1 %is_none, label %done, label %clear
clear:
  call void @llvm.memset.p0.i64(ptr %data, i8 0, i64 %size, i1 0)
  br label %done
done:
  ret ptr %data
}

define ptr @diffc_blocks_realloc(ptr %context, ptr %old, i64 %size) {
  %data = call ptr @diffc_blocks_malloc(ptr %context, i64 %size)
  %is_none = icmp eq ptr %data, null
  %was_none = icmp eq ptr %old, null
  %is_bare = or i1 %is_none, %was_none
  br i1 %is_bare, label %done, label %copy
copy:
  %block = getelementptr i8, ptr %old, i64 -{HEADER}
  %capacity = load i64, ptr %block
  %bytes = call i64 @llvm.umin.i64(i64 %capacity, i64 %size)
  call void @llvm.memcpy.p0.p0.i64(ptr %data, ptr %old, i64 %bytes, i1 0)
  call void @diffc_blocks_free(ptr %context, ptr %old, i64 %capacity)
  br label %done
done:
  ret ptr %data
}

define void @diffc_blocks_free(ptr %context, ptr %data, i64 %size) {
entry:
  %is_none = icmp eq ptr %data, null
  br i1 %is_none, label %done, label %some
some:
  %block = getelementptr i8, ptr %data, i64 -{HEADER}
  %capacity = load i64, ptr %block
  %is_small = icmp ult i64 %capacity, {POOLED_FROM}
  %is_large = icmp ugt i64 %capacity, {LIMIT}
  %passes = or i1 %is_small, %is_large
  br i1 %passes, label %release, label %keep
release:
  call void @free(ptr %block)
  ret void
keep:
  %goal = sub i64 {LIMIT}, %capacity
  %gone = call i64 @diffc_blocks_trim(i64 %goal)
  %full = load i64, ptr @count
  %is_full = icmp eq i64 %full, {SLOTS}
  br i1 %is_full, label %oldest, label %append
oldest:
  %dropped = call ptr @take(i64 0)
  call void @free(ptr %dropped)
  br label %append
append:
  %k = load i64, ptr @count
  %block_at = getelementptr ptr, ptr @blocks, i64 %k
  %size_at = getelementptr i64, ptr @sizes, i64 %k
  store ptr %block, ptr %block_at
  store i64 %capacity, ptr %size_at
  %count = add i64 %k, 1
  store i64 %count, ptr @count
  %held = load i64, ptr @held
  %more = add i64 %held, %capacity
  store i64 %more, ptr @held
  br label %done
done:
  ret void
}
