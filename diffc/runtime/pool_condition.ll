; Waiting with POSIX threads alone: one mutex and one condition variable for all words.

@mutex = internal global [128 x i8] zeroinitializer, align 64
@condition = internal global [128 x i8] zeroinitializer, align 64

declare i32 @pthread_mutex_init(ptr, ptr)
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_init(ptr, ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_broadcast(ptr)

define internal void @set_up() {
  %m = call i32 @pthread_mutex_init(ptr @mutex, ptr null)
  %c = call i32 @pthread_cond_init(ptr @condition, ptr null)
  ret void
}

; Sleeps while the word holds %value, in whatever group.
define internal void @wait(ptr %word, i32 %value, i32 %mask) {
entry:
  %l = call i32 @pthread_mutex_lock(ptr @mutex)
  br label %look
look:
  %now = load atomic i32, ptr %word seq_cst, align 4
  %is_same = icmp eq i32 %now, %value
  br i1 %is_same, label %sleep, label %done
sleep:
  %w = call i32 @pthread_cond_wait(ptr @condition, ptr @mutex)
  br label %look
done:
  %u = call i32 @pthread_mutex_unlock(ptr @mutex)
  ret void
}

; Wakes all threads that wait, whatever for: they look at their words again.
define internal void @wake(ptr %word, i32 %mask) {
  %l = call i32 @pthread_mutex_lock(ptr @mutex)
  %b = call i32 @pthread_cond_broadcast(ptr @condition)
  %u = call i32 @pthread_mutex_unlock(ptr @mutex)
  ret void
}
