; The pool's workers: their loop, how they start and end.

; Which of the 32 groups of sleepers the parties in a set of 64 belong to.
define internal i32 @mask_of(i64 %parties) alwaysinline {
  %high64 = lshr i64 %parties, 32
  %high = trunc i64 %high64 to i32
  %low = trunc i64 %parties to i32
  %mask = or i32 %high, %low
  ret i32 %mask
}

; A worker: its argument is the round it was made in, and above 32 bits its party, from 1 on.
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
  call void @relax(i64 %s)
  %s1 = add i64 %s, 1
  %may_spin = icmp ult i64 %s1, %spins
  br i1 %may_spin, label %spin, label %sleep
sleep:
  %bit = shl i64 1, %number64
  %slept = atomicrmw or ptr getelementptr (i8, ptr @diffc_pool, i64 {SLEEPERS}), i64 %bit seq_cst
  %mask = call i32 @mask_of(i64 %bit)
  br label %doze
doze:
  call void @wait(ptr getelementptr (i8, ptr @diffc_pool, i64 {ROUND}), i32 %seen, i32 %mask)
  %later = load atomic i32, ptr getelementptr (i8, ptr @diffc_pool, i64 {ROUND}) acquire, align 4
  %is_later = icmp ne i32 %later, %seen
  br i1 %is_later, label %up, label %doze
up:
  %others = xor i64 %bit, -1
  %awake = atomicrmw and ptr getelementptr (i8, ptr @diffc_pool, i64 {SLEEPERS}), i64 %others seq_cst
  br label %begin
begin:
  %round = phi i32 [%now, %spin], [%later, %up]
  %quit = load atomic i32, ptr getelementptr (i8, ptr @diffc_pool, i64 {QUIT}) acquire, align 4
  %is_over = icmp ne i32 %quit, 0
  br i1 %is_over, label %over, label %ask
ask:
  ; A region of fewer threads than there are: what is read may be another round's, which is slower
  ; or faster, never wrong.
  %parties = load atomic i32, ptr getelementptr (i8, ptr @diffc_pool, i64 {PARTIES}) monotonic, align 4
  %is_asked = icmp ult i32 %number, %parties
  br i1 %is_asked, label %run, label %ran
run:
  %each = call i64 @run_chunks(i32 %round, i64 %number64)
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
  %party = add i64 %number, 1
  %high = shl i64 %party, 32
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
  call void @wake(ptr getelementptr (i8, ptr @diffc_pool, i64 {ROUND}), i32 -1)
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
  store i64 0, ptr getelementptr (i8, ptr @diffc_pool, i64 {SLEEPERS})
  store i32 0, ptr getelementptr (i8, ptr @diffc_pool, i64 {QUIT})
  store i32 0, ptr getelementptr (i8, ptr @diffc_pool, i64 {CALLER_SLEEPS})
  store atomic i32 0, ptr getelementptr (i8, ptr @diffc_pool, i64 {LOCK}) release, align 4
  ret void
}

define void @diffc_pool_reset() nounwind {
  call void @set_up()
  call void @forget()
  ret void
}
