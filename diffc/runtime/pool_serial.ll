; Where there is no pool: regions run in the thread that calls.

define void @{PARALLEL_FOR}(ptr %function, ptr %context, ptr %site, i64 %limit) nounwind {
entry:
  %most_at = getelementptr i8, ptr %site, i64 {SITE_MOST}
  %units = load i64, ptr %site
  %most = load i64, ptr %most_at
  %is_bounded = icmp ne i64 %most, 0
  %step = select i1 %is_bounded, i64 %most, i64 %units
  %is_any = icmp ne i64 %units, 0
  br i1 %is_any, label %share, label %nothing
share:
  %at = phi i64 [0, %entry], [%stop, %share]
  %far = add i64 %at, %step
  %is_less = icmp ult i64 %far, %units
  %stop = select i1 %is_less, i64 %far, i64 %units
  call void %function(ptr %context, i64 %at, i64 %stop, i64 0)
  %is_more = icmp ult i64 %stop, %units
  br i1 %is_more, label %share, label %nothing
nothing:
  ret void
}
