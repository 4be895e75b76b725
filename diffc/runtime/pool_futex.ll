; Waiting on Linux: the futex system call.

declare i64 @syscall(i64, ...)

define internal void @set_up() {
  ret void
}

; Sleeps while the word holds %value; may come back early.
define internal void @wait(ptr %word, i32 %value) {
  %code = call i64 (i64, ...) @syscall(i64 {SYS_FUTEX}, ptr %word, i32 128, i32 %value, ptr null, ptr null, i32 0)
  ret void
}

; Wakes up to %count threads that wait for the word to change.
define internal void @wake(ptr %word, i32 %count) {
  %code = call i64 (i64, ...) @syscall(i64 {SYS_FUTEX}, ptr %word, i32 129, i32 %count, ptr null, ptr null, i32 0)
  ret void
}
