; Whether sharing a region pays: what is learnt, and for how long regions run alone.

; What a region took together with the time since the one before, which ran in the same %mode; 0 where
; that was long ago. Helpers also make what lies between regions slower: its data is elsewhere.
define internal i64 @span(i64 %before, i64 %now, i64 %mode) {
  %last = load atomic i64, ptr getelementptr (i8, ptr @diffc_pool, i64 {LAST_END}) monotonic, align 8
  %last_mode = load atomic i64, ptr getelementptr (i8, ptr @diffc_pool, i64 {LAST_MODE}) monotonic, align 8
  store atomic i64 %now, ptr getelementptr (i8, ptr @diffc_pool, i64 {LAST_END}) monotonic, align 8
  store atomic i64 %mode, ptr getelementptr (i8, ptr @diffc_pool, i64 {LAST_MODE}) monotonic, align 8
  %gap = sub i64 %before, %last
  %is_near = icmp ult i64 %gap, {NEAR}
  %is_same = icmp eq i64 %mode, %last_mode
  %is_known = and i1 %is_near, %is_same
  %whole = sub i64 %now, %last
  %span = select i1 %is_known, i64 %whole, i64 0
  ret i64 %span
}

; Notes what a region took alone: the least of late.
define internal void @learn(ptr %word, i64 %took) {
  %known = load atomic i64, ptr %word monotonic, align 8
  %part = lshr i64 %known, 3
  %slower = add i64 %known, %part
  %is_new = icmp eq i64 %known, 0
  %bound = select i1 %is_new, i64 -1, i64 %slower
  %learnt = call i64 @llvm.umin.i64(i64 %took, i64 %bound)
  store atomic i64 %learnt, ptr %word monotonic, align 8
  ret void
}

; Judges a region. The %site may know how long it takes alone; else %each, what the caller needed for
; its fastest chunk, tells it. Where other processes hold the cores, or the cores are far from each
; other, helpers help late or cost more than they give. So the time that regions gained is summed up,
; old ones fading out; where several regions' worth of time was lost, the next ones run alone for a
; while: a multiple of what one takes, which doubles when this happens again.
define internal void @judge(ptr %site, i64 %before, i64 %now, i64 %each, i64 %count) {
entry:
  %took = sub i64 %now, %before
  %last_at = getelementptr i8, ptr %site, i64 {SITE_LAST}
  store atomic i64 %took, ptr %last_at monotonic, align 8
  %span = call i64 @span(i64 %before, i64 %now, i64 2)
  %known_span_at = getelementptr i8, ptr %site, i64 {SITE_SPAN}
  %known_span = load atomic i64, ptr %known_span_at monotonic, align 8
  %known_at = getelementptr i8, ptr %site, i64 {SITE_ALONE}
  %known = load atomic i64, ptr %known_at monotonic, align 8
  %is_known = icmp ne i64 %known, 0
  %is_none = icmp eq i64 %each, -1
  %product = mul i64 %each, %count
  %guess = select i1 %is_none, i64 %took, i64 %product
  %alone1 = select i1 %is_known, i64 %known, i64 %guess
  %has_span = icmp ne i64 %span, 0
  %has_known_span = icmp ne i64 %known_span, 0
  %are_spans = and i1 %has_span, %has_known_span
  %alone = select i1 %are_spans, i64 %known_span, i64 %alone1
  %time = select i1 %are_spans, i64 %span, i64 %took
  %gain = sub i64 %alone, %time
  %old = load i64, ptr getelementptr (i8, ptr @diffc_pool, i64 {BALANCE})
  %fading = ashr i64 %old, {FADING}
  %faded = sub i64 %old, %fading
  %balance = add i64 %faded, %gain
  %one = call i64 @llvm.umin.i64(i64 %alone, i64 %time)
  %limit = shl i64 %one, {MOST_LOST}
  %lowest = sub i64 0, %limit
  %level = load i64, ptr getelementptr (i8, ptr @diffc_pool, i64 {LEVEL})
  %is_lost = icmp slt i64 %balance, %lowest
  br i1 %is_lost, label %rest, label %go_on
go_on:
  %is_gain = icmp sgt i64 %balance, 0
  %level1 = select i1 %is_gain, i64 0, i64 %level
  store i64 %balance, ptr getelementptr (i8, ptr @diffc_pool, i64 {BALANCE})
  store i64 %level1, ptr getelementptr (i8, ptr @diffc_pool, i64 {LEVEL})
  ret void
rest:
  %short = shl i64 %one, {REST}
  %while = shl i64 %short, %level
  %until = add i64 %now, %while
  %next = add i64 %level, 1
  %higher = call i64 @llvm.umin.i64(i64 %next, i64 {MOST_LEVEL})
  %half = ashr i64 %lowest, 1
  store atomic i64 %until, ptr getelementptr (i8, ptr @diffc_pool, i64 {ALONE_UNTIL}) monotonic, align 8
  store i64 %higher, ptr getelementptr (i8, ptr @diffc_pool, i64 {LEVEL})
  store i64 %half, ptr getelementptr (i8, ptr @diffc_pool, i64 {BALANCE})
  ret void
}
