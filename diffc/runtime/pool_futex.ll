; Waiting on Linux: the futex system call.

declare i64 @syscall(i64, ...)

define internal void @set_up() {
  ret void
}

; Sleeps while the word holds %value, in the groups of %mask; may come back early.
define internal void @wait(ptr %word, i32 %value, i32 %mask) {
  %code = call i64 (i64, ...) @syscall(i64 {SYS_FUTEX}, ptr %word, i32 {FUTEX_WAIT}, i32 %value, ptr null, ptr null, i32 %mask)
  ret void
}

; Wakes all threads of the groups of %mask that wait for the word to change.
define internal void @wake(ptr %word, i32 %mask) {
  %code = call i64 (i64, ...) @syscall(i64 {SYS_FUTEX}, ptr %word, i32 {FUTEX_WAKE}, i32 2147483647, ptr null, ptr null, i32 %mask)
  ret void
}
