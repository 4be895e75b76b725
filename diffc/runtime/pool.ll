; The thread pool's regions: `diffc_parallel_for`, and how chunks are claimed. Names in braces are
; offsets into the state and properties of the system: see pool_code.py, which also says how a region
; works.

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

; One step of spinning. Now and then another thread gets the core: the one that is waited for may
; have no other.
define internal void @relax(i64 %step) alwaysinline {
  %low = and i64 %step, {YIELD_MASK}
  %is_turn = icmp eq i64 %low, {YIELD_MASK}
  br i1 %is_turn, label %yield, label %stay
yield:
  %yielded = call i32 @sched_yield()
  ret void
stay:
  call void @pause()
  ret void
}

; Claims a chunk of the party's tickets in the region %round: from the front for its %owner, else
; from the back. Gives the chunk, or -1 where none is left or the region is another one.
define internal i64 @claim(i64 %party, i32 %round, i1 %is_owner) {
entry:
  %offset = mul i64 %party, 8
  %tickets = getelementptr i8, ptr @diffc_pool, i64 {TICKETS}
  %place = getelementptr i8, ptr %tickets, i64 %offset
  br label %look
look:
  %ticket = load atomic i64, ptr %place acquire, align 8
  %round64 = lshr i64 %ticket, 32
  %its_round = trunc i64 %round64 to i32
  %is_same = icmp eq i32 %its_round, %round
  %next0 = lshr i64 %ticket, 16
  %next = and i64 %next0, 65535
  %end = and i64 %ticket, 65535
  %is_left = icmp ult i64 %next, %end
  %may_claim = and i1 %is_same, %is_left
  br i1 %may_claim, label %try, label %none
try:
  %front = add i64 %ticket, 65536
  %back = sub i64 %ticket, 1
  %rest = select i1 %is_owner, i64 %front, i64 %back
  %swapped = cmpxchg ptr %place, i64 %ticket, i64 %rest acq_rel acquire
  %is_mine = extractvalue {i64, i1} %swapped, 1
  br i1 %is_mine, label %mine, label %look
mine:
  %last = sub i64 %end, 1
  %chunk = select i1 %is_owner, i64 %next, i64 %last
  ret i64 %chunk
none:
  ret i64 -1
}

; Runs chunks of the region %round until none is left, those of %party first; gives the least time
; that one took, -1 where it got none.
define internal i64 @run_chunks(i32 %round, i64 %party) {
entry:
  %parties32 = load atomic i32, ptr getelementptr (i8, ptr @diffc_pool, i64 {PARTIES}) monotonic, align 4
  %parties = zext i32 %parties32 to i64
  br label %visit
visit:
  %v = phi i64 [0, %entry], [%v1, %onward]
  %least = phi i64 [-1, %entry], [%least2, %onward]
  %is_visit = icmp ult i64 %v, %parties
  br i1 %is_visit, label %go, label %done
go:
  %far = add i64 %party, %v
  %is_beyond = icmp uge i64 %far, %parties
  %wrapped = sub i64 %far, %parties
  %victim = select i1 %is_beyond, i64 %wrapped, i64 %far
  %is_owner = icmp eq i64 %v, 0
  br label %look
look:
  %least2 = phi i64 [%least, %go], [%least3, %again]
  %k = call i64 @claim(i64 %victim, i32 %round, i1 %is_owner)
  %is_none = icmp eq i64 %k, -1
  br i1 %is_none, label %onward, label %work
onward:
  %v1 = add i64 %v, 1
  br label %visit
work:
  ; These stand still while a claimed chunk is not finished.
  %function = load ptr, ptr getelementptr (i8, ptr @diffc_pool, i64 {FUNCTION})
  %context = load ptr, ptr getelementptr (i8, ptr @diffc_pool, i64 {CONTEXT})
  %n = load i64, ptr getelementptr (i8, ptr @diffc_pool, i64 {UNITS})
  %count = load i64, ptr getelementptr (i8, ptr @diffc_pool, i64 {COUNT})
  %k1 = add i64 %k, 1
  %begin = call i64 @border(i64 %n, i64 %k, i64 %count)
  %end = call i64 @border(i64 %n, i64 %k1, i64 %count)
  %start = call i64 @clock()
  call void %function(ptr %context, i64 %begin, i64 %end, i64 %party)
  %stop = call i64 @clock()
  %took = sub i64 %stop, %start
  %least3 = call i64 @llvm.umin.i64(i64 %least2, i64 %took)
  %before = atomicrmw add ptr getelementptr (i8, ptr @diffc_pool, i64 {DONE}), i32 1 seq_cst
  %finished = add i32 %before, 1
  %all = trunc i64 %count to i32
  %is_last = icmp eq i32 %finished, %all
  br i1 %is_last, label %tell, label %again
again:
  br label %look
tell:
  %asleep = load atomic i32, ptr getelementptr (i8, ptr @diffc_pool, i64 {CALLER_SLEEPS}) seq_cst, align 4
  %is_asleep = icmp ne i32 %asleep, 0
  br i1 %is_asleep, label %wake, label %done
wake:
  call void @wake(ptr getelementptr (i8, ptr @diffc_pool, i64 {DONE}), i32 -1)
  br label %done
done:
  %result = phi i64 [%least, %visit], [%least3, %tell], [%least3, %wake]
  ret i64 %result
}

; Runs all units in this thread, by shares of %most at most (0: any number).
define internal void @run_alone(ptr %function, ptr %context, i64 %units, i64 %most) {
entry:
  %is_bounded = icmp ne i64 %most, 0
  %step = select i1 %is_bounded, i64 %most, i64 %units
  %is_any = icmp ne i64 %units, 0
  br i1 %is_any, label %share, label %nothing
share:
  %at = phi i64 [0, %entry], [%stop, %share]
  %far = add i64 %at, %step
  %stop = call i64 @llvm.umin.i64(i64 %far, i64 %units)
  call void %function(ptr %context, i64 %at, i64 %stop, i64 0)
  %is_more = icmp ult i64 %stop, %units
  br i1 %is_more, label %share, label %nothing
nothing:
  ret void
}

; Runs %function(%context, begin, end, party) over shares of all units, by several threads where the
; setting and %limit (0: none) allow it; the party is 0 in the thread that calls. The %site says how many units there are, the least and the most of a
; share (0: any number), and keeps what is learnt about it. Returns when all is done. Called within a
; region, or while another thread has one, it runs alone.
define void @{PARALLEL_FOR}(ptr %function, ptr %context, ptr %site, i64 %limit) nounwind {
entry:
  %grain_at = getelementptr i8, ptr %site, i64 {SITE_GRAIN}
  %most_at = getelementptr i8, ptr %site, i64 {SITE_MOST}
  %units = load i64, ptr %site
  %grain = load i64, ptr %grain_at
  %most = load i64, ptr %most_at
  %setting32 = load atomic i32, ptr getelementptr (i8, ptr @diffc_pool, i64 {THREADS}) monotonic, align 4
  %setting = zext i32 %setting32 to i64
  %is_limited = icmp ne i64 %limit, 0
  %asked = select i1 %is_limited, i64 %limit, i64 %setting
  %threads = call i64 @llvm.umin.i64(i64 %setting, i64 %asked)
  %is_threaded = icmp ugt i64 %threads, 1
  %is_much = icmp ugt i64 %units, %grain
  %may_split = and i1 %is_threaded, %is_much
  br i1 %may_split, label %try, label %alone
alone:
  call void @run_alone(ptr %function, ptr %context, i64 %units, i64 %most)
  ret void
try:
  %before = call i64 @clock()
  %until = load atomic i64, ptr getelementptr (i8, ptr @diffc_pool, i64 {ALONE_UNTIL}) monotonic, align 8
  %is_resting = icmp ult i64 %before, %until
  %seen = load atomic i64, ptr getelementptr (i8, ptr @diffc_pool, i64 {SEEN}) monotonic, align 8
  %seen1 = add i64 %seen, 1
  store atomic i64 %seen1, ptr getelementptr (i8, ptr @diffc_pool, i64 {SEEN}) monotonic, align 8
  %phase = and i64 %seen, {SAMPLE_MASK}
  %turn = sub i64 %phase, {SAMPLE_FIRST}
  %is_turn = icmp ult i64 %turn, {SAMPLE_RUNS}
  %last_at = getelementptr i8, ptr %site, i64 {SITE_LAST}
  %last = load atomic i64, ptr %last_at monotonic, align 8
  %is_short = icmp ult i64 %last, {SHORT}
  %is_sample = and i1 %is_turn, %is_short
  %is_due = or i1 %is_resting, %is_sample
  %steady = load i64, ptr getelementptr (i8, ptr @diffc_pool, i64 {STEADY})
  %is_free_to = icmp eq i64 %steady, 0
  %is_timed = and i1 %is_due, %is_free_to
  br i1 %is_timed, label %timed, label %lock
timed:
  call void @run_alone(ptr %function, ptr %context, i64 %units, i64 %most)
  %after = call i64 @clock()
  %took = sub i64 %after, %before
  %alone_at = getelementptr i8, ptr %site, i64 {SITE_ALONE}
  call void @learn(ptr %alone_at, i64 %took)
  %span = call i64 @span(i64 %before, i64 %after, i64 1)
  %has_span = icmp ne i64 %span, 0
  br i1 %has_span, label %learn_span, label %nothing
learn_span:
  %span_at = getelementptr i8, ptr %site, i64 {SITE_SPAN}
  call void @learn(ptr %span_at, i64 %span)
  br label %nothing
nothing:
  ret void
lock:
  %swapped = cmpxchg ptr getelementptr (i8, ptr @diffc_pool, i64 {LOCK}), i32 0, i32 1 acquire monotonic
  %is_free = extractvalue {i32, i1} %swapped, 1
  br i1 %is_free, label %enough, label %alone

enough:
  %wanted64 = sub i64 %threads, 1
  %wanted = trunc i64 %wanted64 to i32
  %present = load i32, ptr getelementptr (i8, ptr @diffc_pool, i64 {WORKERS})
  %are_few = icmp ult i32 %present, %wanted
  br i1 %are_few, label %more, label %cut
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
  %parties = call i64 @llvm.umin.i64(i64 %threads, i64 %count)
  %parties32 = trunc i64 %parties to i32
  %last_party = sub i64 %parties, 1
  store ptr %function, ptr getelementptr (i8, ptr @diffc_pool, i64 {FUNCTION})
  store ptr %context, ptr getelementptr (i8, ptr @diffc_pool, i64 {CONTEXT})
  store i64 %units, ptr getelementptr (i8, ptr @diffc_pool, i64 {UNITS})
  store i64 %count, ptr getelementptr (i8, ptr @diffc_pool, i64 {COUNT})
  store atomic i32 %parties32, ptr getelementptr (i8, ptr @diffc_pool, i64 {PARTIES}) monotonic, align 4
  store atomic i32 0, ptr getelementptr (i8, ptr @diffc_pool, i64 {DONE}) seq_cst, align 4
  %regions = load i64, ptr getelementptr (i8, ptr @diffc_pool, i64 {REGIONS})
  %regions1 = add i64 %regions, 1
  store i64 %regions1, ptr getelementptr (i8, ptr @diffc_pool, i64 {REGIONS})
  %old = load atomic i32, ptr getelementptr (i8, ptr @diffc_pool, i64 {ROUND}) monotonic, align 4
  %round = add i32 %old, 1
  %round64 = zext i32 %round to i64
  %high = shl i64 %round64, 32
  br label %issue
issue:
  %p = phi i64 [0, %cut], [%p1, %issue]
  %p1 = add i64 %p, 1
  %first_chunk = call i64 @border(i64 %count, i64 %p, i64 %parties)
  %bound_chunk = call i64 @border(i64 %count, i64 %p1, i64 %parties)
  %middle = shl i64 %first_chunk, 16
  %low = or i64 %middle, %bound_chunk
  %ticket = or i64 %high, %low
  %ticket_offset = mul i64 %p, 8
  %tickets = getelementptr i8, ptr @diffc_pool, i64 {TICKETS}
  %ticket_at = getelementptr i8, ptr %tickets, i64 %ticket_offset
  store atomic i64 %ticket, ptr %ticket_at release, align 8
  %is_issued = icmp eq i64 %p1, %parties
  br i1 %is_issued, label %publish, label %issue
publish:
  store atomic i32 %round, ptr getelementptr (i8, ptr @diffc_pool, i64 {ROUND}) seq_cst, align 4
  %sleepers = load atomic i64, ptr getelementptr (i8, ptr @diffc_pool, i64 {SLEEPERS}) seq_cst, align 8
  %unasked = shl i64 -2, %last_party
  %asked_set = xor i64 %unasked, -1
  %to_wake = and i64 %sleepers, %asked_set
  %is_any_asleep = icmp ne i64 %to_wake, 0
  br i1 %is_any_asleep, label %call, label %own
call:
  %groups = call i32 @mask_of(i64 %to_wake)
  call void @wake(ptr getelementptr (i8, ptr @diffc_pool, i64 {ROUND}), i32 %groups)
  br label %own
own:
  %each = call i64 @run_chunks(i32 %round, i64 0)
  %all = trunc i64 %count to i32
  %spins = load i64, ptr getelementptr (i8, ptr @diffc_pool, i64 {CALLER_SPINS})
  br label %spin
spin:
  %s = phi i64 [0, %own], [%s1, %again]
  %done = load atomic i32, ptr getelementptr (i8, ptr @diffc_pool, i64 {DONE}) acquire, align 4
  %is_done = icmp eq i32 %done, %all
  br i1 %is_done, label %end, label %again
again:
  call void @relax(i64 %s)
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
  call void @wait(ptr getelementptr (i8, ptr @diffc_pool, i64 {DONE}), i32 %so_far, i32 -1)
  br label %doze
up:
  store atomic i32 0, ptr getelementptr (i8, ptr @diffc_pool, i64 {CALLER_SLEEPS}) seq_cst, align 4
  br label %end
end:
  %now = call i64 @clock()
  call void @judge(ptr %site, i64 %before, i64 %now, i64 %each, i64 %count)
  store atomic i32 0, ptr getelementptr (i8, ptr @diffc_pool, i64 {LOCK}) release, align 4
  ret void
}
