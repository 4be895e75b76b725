; The thread pool: `diffc_parallel_for` and what its workers run. Names in braces are offsets into
; the state and properties of the system: see pool_code.py, which also says how a region works.

@diffc_pool = global [{STATE_BYTES} x i8] zeroinitializer, align 128

declare i64 @llvm.umin.i64(i64, i64)
declare i64 @llvm.umax.i64(i64, i64)
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_join(ptr, ptr)
declare i32 @pthread_attr_init(ptr)
declare i32 @pthread_attr_setstacksize(ptr, i64)
declare i32 @pthread_attr_destroy(ptr)
declare i32 @pthread_sigmask(i32, ptr, ptr)
declare i32 @sigfillset(ptr)
declare i32 @sched_yield()

; Where chunk %k of %count begins: shares of %n as even as possible.
define internal i64 @border(i64 %n, i64 %k, i64 %count) alwaysinline {
  %whole = udiv i64 %n, %count
  %rest = urem i64 %n, %count
  %low = mul i64 %k, %whole
  %more = call i64 @llvm.umin.i64(i64 %k, i64 %rest)
  %begin = add i64 %low, %more
  ret i64 %begin
}

; Claims and runs chunks of the region %round until none is left.
define internal void @run_chunks(i32 %round) {
entry:
  br label %look
look:
  %ticket = load atomic i64, ptr @diffc_pool acquire, align 8
  %round64 = lshr i64 %ticket, 32
  %its_round = trunc i64 %round64 to i32
  %is_same = icmp eq i32 %its_round, %round
  %next0 = lshr i64 %ticket, 16
  %k = and i64 %next0, 65535
  %count = and i64 %ticket, 65535
  %is_left = icmp ult i64 %k, %count
  %may_claim = and i1 %is_same, %is_left
  br i1 %may_claim, label %claim, label %done
claim:
  %later = add i64 %ticket, 65536
  %swapped = cmpxchg ptr @diffc_pool, i64 %ticket, i64 %later acq_rel acquire
  %is_mine = extractvalue {i64, i1} %swapped, 1
  br i1 %is_mine, label %work, label %look
work:
  ; These stand still while a claimed chunk is not finished.
  %function = load ptr, ptr getelementptr (i8, ptr @diffc_pool, i64 {FUNCTION})
  %context = load ptr, ptr getelementptr (i8, ptr @diffc_pool, i64 {CONTEXT})
  %n = load i64, ptr getelementptr (i8, ptr @diffc_pool, i64 {UNITS})
  %k1 = add i64 %k, 1
  %begin = call i64 @border(i64 %n, i64 %k, i64 %count)
  %end = call i64 @border(i64 %n, i64 %k1, i64 %count)
  call void %function(ptr %context, i64 %begin, i64 %end)
  %before = atomicrmw add ptr getelementptr (i8, ptr @diffc_pool, i64 {DONE}), i32 1 seq_cst
  %finished = add i32 %before, 1
  %all = trunc i64 %count to i32
  %is_last = icmp eq i32 %finished, %all
  br i1 %is_last, label %tell, label %look
tell:
  %asleep = load atomic i32, ptr getelementptr (i8, ptr @diffc_pool, i64 {CALLER_SLEEPS}) seq_cst, align 4
  %is_asleep = icmp ne i32 %asleep, 0
  br i1 %is_asleep, label %wake, label %done
wake:
  call void @wake(ptr getelementptr (i8, ptr @diffc_pool, i64 {DONE}), i32 1)
  br label %done
done:
  ret void
}

; A worker: its argument is the round it was made in, and above 32 bits its number.
define internal ptr @worker(ptr %argument) {
entry:
  %words = ptrtoint ptr %argument to i64
  %start = trunc i64 %words to i32
  %number64 = lshr i64 %words, 32
  %number = trunc i64 %number64 to i32
  br label %idle
idle:
  %seen = phi i32 [%start, %entry], [%round, %ran]
  %spins = load i64, ptr getelementptr (i8, ptr @diffc_pool, i64 {WORKER_SPINS})
  br label %spin
spin:
  %s = phi i64 [0, %idle], [%s1, %again]
  %now = load atomic i32, ptr getelementptr (i8, ptr @diffc_pool, i64 {ROUND}) acquire, align 4
  %is_new = icmp ne i32 %now, %seen
  br i1 %is_new, label %begin, label %again
again:
  call void @pause()
  %s1 = add i64 %s, 1
  %may_spin = icmp ult i64 %s1, %spins
  br i1 %may_spin, label %spin, label %sleep
sleep:
  %slept = atomicrmw add ptr getelementptr (i8, ptr @diffc_pool, i64 {SLEEPERS}), i32 1 seq_cst
  br label %doze
doze:
  call void @wait(ptr getelementptr (i8, ptr @diffc_pool, i64 {ROUND}), i32 %seen)
  %later = load atomic i32, ptr getelementptr (i8, ptr @diffc_pool, i64 {ROUND}) acquire, align 4
  %is_later = icmp ne i32 %later, %seen
  br i1 %is_later, label %up, label %doze
up:
  %awake = atomicrmw sub ptr getelementptr (i8, ptr @diffc_pool, i64 {SLEEPERS}), i32 1 seq_cst
  br label %begin
begin:
  %round = phi i32 [%now, %spin], [%later, %up]
  %quit = load atomic i32, ptr getelementptr (i8, ptr @diffc_pool, i64 {QUIT}) acquire, align 4
  %is_over = icmp ne i32 %quit, 0
  br i1 %is_over, label %over, label %ask
ask:
  ; A region of fewer threads than there are: what is read may be another round's, which is slower
  ; or faster, never wrong.
  %helpers = load atomic i32, ptr getelementptr (i8, ptr @diffc_pool, i64 {HELPERS}) monotonic, align 4
  %is_asked = icmp ult i32 %number, %helpers
  br i1 %is_asked, label %run, label %ran
run:
  call void @run_chunks(i32 %round)
  br label %ran
ran:
  br label %idle
over:
  ret ptr null
}

; Makes workers until there are %wanted; the lock is held. Signals are the callers' business: they
; are blocked in workers. Where the system has no more threads, the pool asks no further.
define internal void @grow(i32 %wanted) noinline cold {
entry:
  %all = alloca [128 x i8], align 16
  %old = alloca [128 x i8], align 16
  %attributes = alloca [128 x i8], align 16
  %filled = call i32 @sigfillset(ptr %all)
  %masked = call i32 @pthread_sigmask(i32 {SIG_SETMASK}, ptr %all, ptr %old)
  %made = call i32 @pthread_attr_init(ptr %attributes)
  %sized = call i32 @pthread_attr_setstacksize(ptr %attributes, i64 {STACK_BYTES})
  %round = load atomic i32, ptr getelementptr (i8, ptr @diffc_pool, i64 {ROUND}) acquire, align 4
  %low = zext i32 %round to i64
  br label %loop
loop:
  %count = load i32, ptr getelementptr (i8, ptr @diffc_pool, i64 {WORKERS})
  %more = icmp ult i32 %count, %wanted
  br i1 %more, label %make, label %done
make:
  %number = zext i32 %count to i64
  %high = shl i64 %number, 32
  %words = or i64 %high, %low
  %argument = inttoptr i64 %words to ptr
  %place = getelementptr ptr, ptr getelementptr (i8, ptr @diffc_pool, i64 {HANDLES}), i64 %number
  %code = call i32 @pthread_create(ptr %place, ptr %attributes, ptr @worker, ptr %argument)
  %is_made = icmp eq i32 %code, 0
  %count1 = add i32 %count, 1
  br i1 %is_made, label %keep, label %enough
keep:
  store atomic i32 %count1, ptr getelementptr (i8, ptr @diffc_pool, i64 {WORKERS}) monotonic, align 4
  br label %loop
enough:
  store atomic i32 %count1, ptr getelementptr (i8, ptr @diffc_pool, i64 {THREADS}) monotonic, align 4
  br label %done
done:
  %freed = call i32 @pthread_attr_destroy(ptr %attributes)
  %unmasked = call i32 @pthread_sigmask(i32 {SIG_SETMASK}, ptr %old, ptr null)
  ret void
}

; Runs %function(%context, begin, end) over shares of 0 ... %units - 1, by several threads where the
; setting, %limit (0: none) and %grain, the least share, allow it. A share has %most units at most
; (0: any number). Returns when all is done. Called within a region, or while another thread has
; one, it runs alone.
define void @{PARALLEL_FOR}(ptr %function, ptr %context, i64 %units, i64 %grain, i64 %most, i64 %limit) nounwind {
entry:
  %setting32 = load atomic i32, ptr getelementptr (i8, ptr @diffc_pool, i64 {THREADS}) monotonic, align 4
  %setting = zext i32 %setting32 to i64
  %is_limited = icmp ne i64 %limit, 0
  %asked = select i1 %is_limited, i64 %limit, i64 %setting
  %threads = call i64 @llvm.umin.i64(i64 %setting, i64 %asked)
  %is_threaded = icmp ugt i64 %threads, 1
  %is_much = icmp ugt i64 %units, %grain
  %may_split = and i1 %is_threaded, %is_much
  br i1 %may_split, label %try, label %alone
try:
  %swapped = cmpxchg ptr getelementptr (i8, ptr @diffc_pool, i64 {LOCK}), i32 0, i32 1 acquire monotonic
  %is_free = extractvalue {i32, i1} %swapped, 1
  br i1 %is_free, label %enough, label %alone

alone:
  %is_bounded = icmp ne i64 %most, 0
  %step = select i1 %is_bounded, i64 %most, i64 %units
  %is_any = icmp ne i64 %units, 0
  br i1 %is_any, label %share, label %nothing
share:
  %at = phi i64 [0, %alone], [%stop, %share]
  %far = add i64 %at, %step
  %stop = call i64 @llvm.umin.i64(i64 %far, i64 %units)
  call void %function(ptr %context, i64 %at, i64 %stop)
  %is_more = icmp ult i64 %stop, %units
  br i1 %is_more, label %share, label %nothing
nothing:
  ret void

enough:
  %wanted64 = sub i64 %threads, 1
  %wanted = trunc i64 %wanted64 to i32
  %present = load i32, ptr getelementptr (i8, ptr @diffc_pool, i64 {WORKERS})
  %is_short = icmp ult i32 %present, %wanted
  br i1 %is_short, label %more, label %cut
more:
  call void @grow(i32 %wanted)
  br label %cut
cut:
  ; As many chunks for each thread, of %grain units at least and of %most at most.
  %many = mul i64 %threads, {CHUNKS}
  %grain1 = call i64 @llvm.umax.i64(i64 %grain, i64 1)
  %fit = udiv i64 %units, %grain1
  %few = call i64 @llvm.umin.i64(i64 %many, i64 %fit)
  %odd = urem i64 %few, %threads
  %even = sub i64 %few, %odd
  %has_round = icmp ne i64 %even, 0
  %fair = select i1 %has_round, i64 %even, i64 %few
  %has_most = icmp ne i64 %most, 0
  %most1 = select i1 %has_most, i64 %most, i64 %units
  %units0 = sub i64 %units, 1
  %parts0 = udiv i64 %units0, %most1
  %parts = add i64 %parts0, 1
  %needed = call i64 @llvm.umax.i64(i64 %fair, i64 %parts)
  %count = call i64 @llvm.umin.i64(i64 %needed, i64 65535)
  store ptr %function, ptr getelementptr (i8, ptr @diffc_pool, i64 {FUNCTION})
  store ptr %context, ptr getelementptr (i8, ptr @diffc_pool, i64 {CONTEXT})
  store i64 %units, ptr getelementptr (i8, ptr @diffc_pool, i64 {UNITS})
  store atomic i32 %wanted, ptr getelementptr (i8, ptr @diffc_pool, i64 {HELPERS}) monotonic, align 4
  store atomic i32 0, ptr getelementptr (i8, ptr @diffc_pool, i64 {DONE}) seq_cst, align 4
  %regions = load i64, ptr getelementptr (i8, ptr @diffc_pool, i64 {REGIONS})
  %regions1 = add i64 %regions, 1
  store i64 %regions1, ptr getelementptr (i8, ptr @diffc_pool, i64 {REGIONS})
  %old = load atomic i32, ptr getelementptr (i8, ptr @diffc_pool, i64 {ROUND}) monotonic, align 4
  %round = add i32 %old, 1
  %round64 = zext i32 %round to i64
  %high = shl i64 %round64, 32
  %ticket = or i64 %high, %count
  store atomic i64 %ticket, ptr @diffc_pool seq_cst, align 8
  store atomic i32 %round, ptr getelementptr (i8, ptr @diffc_pool, i64 {ROUND}) seq_cst, align 4
  %sleepers = load atomic i32, ptr getelementptr (i8, ptr @diffc_pool, i64 {SLEEPERS}) seq_cst, align 4
  %is_any_asleep = icmp ne i32 %sleepers, 0
  br i1 %is_any_asleep, label %call, label %own
call:
  ; Whoever wakes must be among the helpers, so where there are more workers all are woken.
  %workers = load i32, ptr getelementptr (i8, ptr @diffc_pool, i64 {WORKERS})
  %are_all = icmp ule i32 %workers, %wanted
  %count32 = trunc i64 %count to i32
  %useful = sub i32 %count32, 1
  %number = select i1 %are_all, i32 %useful, i32 2147483647
  call void @wake(ptr getelementptr (i8, ptr @diffc_pool, i64 {ROUND}), i32 %number)
  br label %own
own:
  call void @run_chunks(i32 %round)
  %all = trunc i64 %count to i32
  %spins = load i64, ptr getelementptr (i8, ptr @diffc_pool, i64 {CALLER_SPINS})
  br label %spin
spin:
  %s = phi i64 [0, %own], [%s1, %again]
  %done = load atomic i32, ptr getelementptr (i8, ptr @diffc_pool, i64 {DONE}) acquire, align 4
  %is_done = icmp eq i32 %done, %all
  br i1 %is_done, label %end, label %again
again:
  call void @pause()
  %s1 = add i64 %s, 1
  %may_spin = icmp ult i64 %s1, %spins
  br i1 %may_spin, label %spin, label %sleep
sleep:
  store atomic i32 1, ptr getelementptr (i8, ptr @diffc_pool, i64 {CALLER_SLEEPS}) seq_cst, align 4
  br label %doze
doze:
  %so_far = load atomic i32, ptr getelementptr (i8, ptr @diffc_pool, i64 {DONE}) seq_cst, align 4
  %is_all = icmp eq i32 %so_far, %all
  br i1 %is_all, label %up, label %rest
rest:
  call void @wait(ptr getelementptr (i8, ptr @diffc_pool, i64 {DONE}), i32 %so_far)
  br label %doze
up:
  store atomic i32 0, ptr getelementptr (i8, ptr @diffc_pool, i64 {CALLER_SLEEPS}) seq_cst, align 4
  br label %end
end:
  store atomic i32 0, ptr getelementptr (i8, ptr @diffc_pool, i64 {LOCK}) release, align 4
  ret void
}

; Ends the workers, after the region that may be running.
define void @diffc_pool_stop() nounwind {
entry:
  br label %try
try:
  %swapped = cmpxchg ptr getelementptr (i8, ptr @diffc_pool, i64 {LOCK}), i32 0, i32 1 acquire monotonic
  %is_free = extractvalue {i32, i1} %swapped, 1
  br i1 %is_free, label %stop, label %busy
busy:
  %yielded = call i32 @sched_yield()
  br label %try
stop:
  store atomic i32 1, ptr getelementptr (i8, ptr @diffc_pool, i64 {QUIT}) release, align 4
  %round = atomicrmw add ptr getelementptr (i8, ptr @diffc_pool, i64 {ROUND}), i32 1 seq_cst
  call void @wake(ptr getelementptr (i8, ptr @diffc_pool, i64 {ROUND}), i32 2147483647)
  %count = load i32, ptr getelementptr (i8, ptr @diffc_pool, i64 {WORKERS})
  %all = zext i32 %count to i64
  br label %loop
loop:
  %k = phi i64 [0, %stop], [%k1, %join]
  %more = icmp ult i64 %k, %all
  br i1 %more, label %join, label %done
join:
  %place = getelementptr ptr, ptr getelementptr (i8, ptr @diffc_pool, i64 {HANDLES}), i64 %k
  %handle = load ptr, ptr %place
  %joined = call i32 @pthread_join(ptr %handle, ptr null)
  %k1 = add i64 %k, 1
  br label %loop
done:
  call void @forget()
  ret void
}

; The state in which nobody works: after the workers ended, or in a forked child, which has none.
define internal void @forget() {
  store i32 0, ptr getelementptr (i8, ptr @diffc_pool, i64 {WORKERS})
  store i32 0, ptr getelementptr (i8, ptr @diffc_pool, i64 {SLEEPERS})
  store i32 0, ptr getelementptr (i8, ptr @diffc_pool, i64 {QUIT})
  store i32 0, ptr getelementptr (i8, ptr @diffc_pool, i64 {CALLER_SLEEPS})
  store i64 0, ptr @diffc_pool
  store atomic i32 0, ptr getelementptr (i8, ptr @diffc_pool, i64 {LOCK}) release, align 4
  ret void
}

define void @diffc_pool_reset() nounwind {
  call void @set_up()
  call void @forget()
  ret void
}
